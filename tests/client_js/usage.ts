/** Usage and misuse, for the TypeScript compiler: test_node.py. */

import { connect, Gap, RtError, type Client } from "../../client/js/rtserver.js";

const rt: Client = connect("http://x", { user: "ann", token: async () => "t", transport: ["ws", "sse"] });
async function use() {
  const likes: number = await rt.counter.add("likes", 1, undefined, { ack: "synced" });
  const again: number = await rt.counter.add("likes", { delta: 2n, idempotency_key: "k" });
  const top = await rt.board.top("w", { limit: 3, timeout_ms: 10 });
  const names: string[] = top.entries.map((entry) => entry.member);
  const many = await rt.counter.add_many([["a", 1]]);
  const first = many.values[0];
  if (typeof first === "number") console.log(first + 1);
  await rt.channel.publish("c", { text: "x", bytes: new Uint8Array(1) }, { key: "k" });
  const room = rt.channel.subscribe("c", { since: { last: 3 }, presence: true }, (m) => console.log(m.offset, m.data.text));
  room.on("join", ({ users, count }) => console.log(users?.length, count));
  const offset = room.position?.[1];
  rt.channel.subscribe("c", { since: room.position }, ({ sender }) => sender?.length);
  for await (const item of rt.channel.subscribe("c")) {
    if (item instanceof Gap) console.log(item.lost); else console.log(item.data);
  }
  for await (const value of rt.counter.watch("likes")) console.log(value + 1);
  rt.board.watchTop("b", 10, ({ entries, count }) => entries[0].score + count);
  rt.board.watchAround("b", "ann", 3, ({ entries }) => entries);
  rt.presence.watch("ann", ({ status }) => status.length);
  await rt.presence.set("away", { note: "x" });
  rt.on("state", ({ state, transport, error }) => error?.retryable);
  rt.on("close", (error: RtError) => error.code);
  rt.use("poll");
  const anything = await rt.call("chat.send", ["x", { text: "y" }], { ack: "synced" });
  const hold = await rt.sale.reserve("x", { items: { cup: 1 }, pass_id: "p", ack: "synced" });
  const { order } = await rt.sale.confirm(hold.hold, "pay-1");
  const left: number = (await rt.sale.status("x", { limit: 10 })).items["cup"].free;
  rt.sale.watch("x", ({ state, total, items }) => state === "open" && total.free - items["cup"].held);
  rt.sale.watchPlace("x", ({ position, holds, orders }) => [position, holds[0].expires_at, orders.length]);
  rt.sale.watchPlace("x", "ann", ({ pass_id }) => pass_id);
  for await (const step of rt.sale.followLedger("x", { since: { last: 5 } })) {
    if (!(step instanceof Gap)) console.log(step.seq, step.items?.["cup"], rt.user, order, left);
  }
  return [likes, again, names, offset, anything];
}
// @ts-expect-error
rt.counter.add(42);
// @ts-expect-error
rt.counter.get("a", { ack: "synced" });
// @ts-expect-error
rt.board.create("x", { order: "down" });
// @ts-expect-error
rt.on("nothing", () => {});
// @ts-expect-error
connect("x", { transport: "pigeon" });
// @ts-expect-error
rt.sale.reserve("x", "ann", { cup: 1 }, { zone: "hall" });
// @ts-expect-error
rt.sale.watch("x", ({ state }) => state === "half-open");
void use;
