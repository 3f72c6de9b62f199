/** The commands. Made by client/generate.py from the server's tables; change those. */

const ROWS = `
session server.auth token
session server.kick user channel? block_ms?
session server.ping
session server.info
session server.stats
session server.time
session server.accept_time
session server.advance ms
session server.snapshot
write counter.add name delta? ttl_ms?
write counter.add_many items
write counter.add_within name delta min? max? on_limit?
read counter.get name
read counter.get_many names
write counter.set name value
read counter.list prefix? after? limit?
write counter.delete name
write board.create name order? mode? score?
write board.submit name member score mode? meta? ttl_ms?
write board.submit_many name items
read board.rank name member window? period? kind?
read board.top name limit? offset? window? period? kind?
read board.around name member radius? window? period? kind?
read board.by_score name low high limit? offset? window? period? kind?
read board.members name members window? period? kind?
read board.count name window? period?
write board.remove name members ban?
write board.unban name members
read board.info name
read board.list prefix? after? limit?
write board.delete name
write sale.create name items per_user? hold_ms? opens_at? closes_at? queue?
write sale.configure name per_user? hold_ms? opens_at? closes_at? queue?
write sale.restock name items
write sale.open name
write sale.pause name
write sale.close name release?
write sale.delete name
read sale.list prefix? after? limit?
read sale.status name after? limit?
write sale.join name user? challenge?
write sale.leave name user?
read sale.place name user?
write sale.reserve name user? items? best? pass_id? hold?
write sale.confirm hold reference? items? late?
write sale.cancel hold
write sale.extend hold ms
write sale.refund order items? reference? restock?
read sale.get hold
read sale.best_available name zone? count?
read sale.orders name after? limit? state? user?
read sale.ledger name after? limit?
read sale.audit name
write channel.publish channel data key?
write channel.publish_many items
read channel.history channel after? before? limit?
read channel.presence channel after? limit?
write channel.configure namespace class? history_count? history_bytes? history_ms? idle_ms? subscribe? publish? presence? presence_events_max? reset?
session presence.set status note?
read presence.get users
`;

/** {method: {effect, params, required}}; what reads may be sent again, what writes under a key. */
export const COMMANDS = Object.fromEntries(ROWS.trim().split("\n").map(row));

function row(line) {
  const [effect, method, ...params] = line.split(" ");
  const required = params.filter((name) => !name.endsWith("?")).length;
  const names = params.map((name) => name.replace("?", ""));
  return [method, { effect, params: names, required }];
}
