import assert from "node:assert/strict";
import test from "node:test";

import { settle, World } from "./world.mjs";

const keyOf = (socket, method = "counter.add") => socket.asked(method).options.idempotency_key;

test("positions, names and options", async () => {
  const world = new World();
  const rt = await world.connected();
  const { socket } = world;
  const sent = async (start) => {
    start().catch(() => {});
    await settle();
    const [, , method, params, options] = socket.frames.at(-1);
    const { timeout_ms, idempotency_key, ...others } = options;
    return [method, params, others];
  };
  assert.deepEqual(await sent(() => rt.board.top("w")), ["board.top", ["w"], {}]);
  assert.deepEqual(
    await sent(() => rt.board.top("w", { offset: 5, ack: "synced" })),
    ["board.top", ["w", null, 5], { ack: "synced" }],
  );
  assert.deepEqual(
    await sent(() => rt.channel.publish("c", { data: 1 })),
    ["channel.publish", ["c", { data: 1 }], {}],
  );
  assert.deepEqual(
    await sent(() => rt.channel.publish("c", { data: 1 }, { key: "k" })),
    ["channel.publish", ["c", { data: 1 }, "k"], {}],
  );
  assert.deepEqual(
    await sent(() => rt.call("sale.reserve", { name: "x" })),
    ["sale.reserve", { name: "x" }, {}],
  );
  await assert.rejects(rt.counter.add("a", { dleta: 1 }), /no parameter and no option dleta/);
  assert.throws(() => rt.call("server.hello", []), /rt\.channel/);
});

test("calls of one turn leave in one message, in order", async () => {
  const world = new World();
  const rt = await world.connected();
  const messages = [];
  world.socket.send = (text) => messages.push(text);
  for (let n = 0; n < 5; n += 1) rt.counter.get(`c${n}`).catch(() => {});
  await settle();
  assert.equal(messages.length, 1);
  const names = messages[0].split("\n").map((line) => JSON.parse(line)[3][0]);
  assert.deepEqual(names, ["c0", "c1", "c2", "c3", "c4"]);
});

test("a write that was not answered is sent again under its key", async () => {
  const world = new World();
  const rt = await world.connected();
  const added = rt.counter.add("likes", 2);
  await settle();
  const key = keyOf(world.socket);
  assert.deepEqual(key.slice(1), [1, 0]);
  world.socket.breaks();
  const next = await world.redials();
  next.greets();
  await settle();
  assert.deepEqual(keyOf(next), key);
  next.answers("counter.add", 2);
  assert.equal(await added, 2);
  rt.counter.add("likes").catch(() => {});
  await settle();
  assert.deepEqual(keyOf(next), [key[0], 2, 1]); // the first is done
});

test("done does not pass a write that is open", async () => {
  const world = new World();
  const rt = await world.connected();
  const { socket } = world;
  rt.counter.add("slow").catch(() => {});
  const quick = rt.counter.add("quick");
  await settle();
  socket.answers("counter.add", 1);
  await quick;
  rt.counter.add("third").catch(() => {});
  await settle();
  assert.deepEqual(keyOf(socket).slice(1), [3, 0]);
});

test("a timeout leaves the number open until the reply", async () => {
  const world = new World();
  const rt = await world.connected();
  const { socket } = world;
  const late = rt.counter.add("slow", { timeout_ms: 1000 });
  late.catch(() => {});
  await settle();
  const { id } = socket.asked("counter.add");
  await world.passes(1000);
  await assert.rejects(late, { name: "outcome_unknown", retryable: false });
  rt.counter.add("b").catch(() => {});
  await settle();
  assert.deepEqual(keyOf(socket).slice(1), [2, 0]);
  socket.says([1, id, null, 1]);
  rt.counter.add("c").catch(() => {});
  await settle();
  assert.deepEqual(keyOf(socket).slice(1), [3, 1]);
});

test("reads are asked again, and time out as what they are", async () => {
  const world = new World();
  const rt = await world.connected();
  const value = rt.counter.get("likes");
  await settle();
  world.socket.breaks();
  const next = await world.redials();
  next.greets();
  await settle();
  next.answers("counter.get", 7);
  assert.equal(await value, 7);
  const late = rt.counter.get("x", { timeout_ms: 10 });
  late.catch(() => {});
  await world.passes(10);
  await assert.rejects(late, { name: "timeout", retryable: true });
});

test("what is neither a read nor a write is not sent twice", async () => {
  const world = new World();
  const rt = await world.connected();
  const jumped = rt.server.advance(1000);
  jumped.catch(() => {});
  await settle();
  world.socket.breaks();
  await assert.rejects(jumped, { name: "connection_lost" });
});

test("retryWrites: false says that the outcome is unknown", async () => {
  const world = new World();
  const rt = await world.connected({ retryWrites: false });
  const added = rt.counter.add("likes");
  const keyed = rt.counter.add("likes", { idempotency_key: "mine" });
  added.catch(() => {});
  await settle();
  world.socket.breaks();
  await assert.rejects(added, { name: "outcome_unknown" });
  const next = await world.redials();
  next.greets();
  await settle();
  assert.equal(keyOf(next), "mine");
  next.answers("counter.add", 1);
  assert.equal(await keyed, 1);
});

test("a write is not sent again when the server may have forgotten its key", async () => {
  const world = new World();
  const rt = await world.connected();
  const added = rt.counter.add("likes", { timeout_ms: 0 });
  added.catch(() => {});
  await settle();
  world.socket.breaks();
  await world.passes(600_001); // no timer of the page ran
  world.socket.greets();
  await settle();
  await assert.rejects(added, { name: "outcome_unknown" });
  assert.equal(world.socket.asked("counter.add"), undefined);
});

test("an error about a key of our own is put in the caller's terms", async () => {
  const world = new World();
  const rt = await world.connected();
  const added = rt.counter.add("likes");
  added.catch(() => {});
  await settle();
  world.socket.refuses("counter.add", [106, "duplicate", "done", { stored: 1 }]);
  await assert.rejects(added, { name: "outcome_unknown" });
  const mine = rt.counter.add("likes", { idempotency_key: "k" });
  mine.catch(() => {});
  await settle();
  world.socket.refuses("counter.add", [106, "duplicate", "done", null]);
  await assert.rejects(mine, { name: "duplicate" });
});

test("waiting calls are bounded, and so is one call", async () => {
  const world = new World();
  const rt = world.connect();
  for (let n = 0; n < 8_000; n += 1) rt.counter.get("a", { timeout_ms: 0 }).catch(() => {});
  await assert.rejects(rt.counter.get("a"), { name: "overloaded", retryable: true });
  rt.close();
  const other = await new World().connected();
  await assert.rejects(other.channel.publish("c", "x".repeat(1024 * 1024)), { name: "frame_too_large" });
  await assert.rejects(other.channel.publish("c", "é".repeat(600_000)), { name: "frame_too_large" });
});

test("at most 8,000 numbers are sent beyond the first that is open", async () => {
  const world = new World();
  const rt = await world.connected();
  const { socket } = world;
  rt.counter.add("first", { timeout_ms: 0 }).catch(() => {});
  await settle();
  for (let round = 0; round < 9; round += 1) {
    for (let n = 0; n < 1_000; n += 1) rt.counter.add("more", { timeout_ms: 0 }).catch(() => {});
    await settle();
    const ids = socket.frames.filter((frame) => frame[3][0] === "more").map((frame) => frame[1]);
    socket.says(...ids.map((id) => [1, id, null, 1]));
    await settle();
  }
  const numbers = socket.frames.filter((frame) => frame[4]?.idempotency_key)
    .map((frame) => frame[4].idempotency_key);
  assert.equal(Math.max(...numbers.map(([, number, done]) => number - done)), 8_000);
});

test("the end fails what is open", async () => {
  const world = new World();
  const rt = await world.connected();
  const read = rt.counter.get("a");
  const write = rt.counter.add("a");
  for (const call of [read, write]) call.catch(() => {});
  await settle();
  rt.close();
  await assert.rejects(read, { name: "closed" });
  await assert.rejects(write, { name: "outcome_unknown" });
  await assert.rejects(rt.counter.get("a"), { name: "closed" });
  assert.equal(rt.state, "closed");
});
