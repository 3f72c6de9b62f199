/**
 * The cursor of an event stream or a poll (protocol.md section 6): `era~channel.birth.offset~...` in
 * hexadecimal, where a channel is the CRC-32 of its name and its epoch is `era.birth`.
 */

const EPOCH = /^([0-9a-z]*)\.(\d+)$/;

/** The cursor of [[channel, [epoch, offset]], ...]; positions that it cannot say are left out. */
export function cursorOf(positions) {
  const places = positions.flatMap(([channel, [epoch, offset]]) => {
    const [, era, birth] = EPOCH.exec(epoch) ?? [];
    return era === undefined ? [] : [{ channel, era, birth, offset }];
  });
  const era = places[0]?.era ?? "";
  return era + places
    .filter((place) => place.era === era)
    .map(({ channel, birth, offset }) => `~${crc32(channel)}.${hex(birth)}.${hex(offset)}`)
    .join("");
}

/** [epoch, offset] of a channel in a cursor; undefined where it is not in it. */
export function placeIn(cursor, channel) {
  const [era, ...places] = cursor.split("!")[0].split("~");
  const sum = crc32(channel);
  for (const place of places) {
    const [name, birth, offset] = place.split(".");
    if (name === sum) return [`${era}.${parseInt(birth, 16)}`, parseInt(offset, 16)];
  }
  return undefined;
}

const hex = (number) => Number(number).toString(16);

function crc32(text) {
  let sum = ~0;
  for (const byte of new TextEncoder().encode(text)) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return (~sum >>> 0).toString(16);
}
