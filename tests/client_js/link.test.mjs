import assert from "node:assert/strict";
import test from "node:test";

import { settle, World } from "./world.mjs";

const dispatch = (target, name, more = {}) => target.dispatchEvent(Object.assign(new Event(name), more));

// --- waits ---

test("waits grow from 0.1 to 20 s, with full jitter", async () => {
  const world = new World();
  const rt = world.connect();
  for (const [chance, least] of [[1, 1], [0, 0], [0.25, 0.25]]) {
    world.chance = () => chance;
    for (let attempt = 0; attempt < 14; attempt += 1) {
      await settle();
      world.socket.breaks();
      const { retry_ms } = world.states.at(-1);
      assert.ok(retry_ms <= 20_000);
      assert.ok(chance === 0 ? retry_ms === 0 : retry_ms >= least * 100);
      await world.passes(retry_ms);
    }
    if (chance === 1) assert.equal(world.states.at(-1).retry_ms, 20_000);
  }
  assert.equal(rt.state, "connecting");
});

test("a line that lived starts the waits anew, a short one does not", async () => {
  const world = new World();
  world.chance = () => 1;
  await world.connected();
  const wait = async () => {
    world.socket.breaks();
    const { retry_ms } = world.states.at(-1);
    await world.passes(retry_ms);
    world.socket.greets();
    return retry_ms;
  };
  const waits = [];
  for (let n = 0; n < 3; n += 1) waits.push(await wait());
  await world.passes(6_000);
  waits.push(await wait());
  assert.deepEqual(waits, [200, 400, 800, 100]);
});

test("the server's wish is waited for, also by a page that comes back", async () => {
  const world = new World();
  await world.connected();
  world.socket.pushes("close", { code: 4000, name: "drain", message: "stops", retry_after_ms: 3_000 });
  assert.ok(world.states.at(-1).retry_ms >= 3_000);
  dispatch(world.window, "online");
  await world.passes(2_900);
  assert.equal(world.sockets.length, 1);
  await world.passes(100);
  assert.equal(world.sockets.length, 2);
});

test("drain: goes at its time, and loses nothing that is under way", async () => {
  const world = new World();
  const rt = await world.connected();
  world.socket.pushes("drain", { retry_after_ms: 1_000 });
  const value = rt.counter.get("a");
  await world.passes(999);
  assert.equal(rt.state, "connected");
  world.chance = () => 0;
  await world.passes(1);
  assert.equal(rt.state, "connecting");
  await world.passes(1);
  world.socket.greets();
  await settle();
  world.socket.answers("counter.get", 5);
  assert.equal(await value, 5);
});

test("a first attempt without an answer is given up", async () => {
  const world = new World();
  world.connect();
  await settle();
  world.socket.opens();
  await world.passes(10_000);
  assert.ok(world.socket.isClosed);
  assert.match(world.states.at(-1).error.message, /no answer/);
});

// --- closes ---

for (const code of [4500, 4502, 4503, 4504]) {
  test(`close ${code} stops for good`, async () => {
    const world = new World();
    const rt = await world.connected();
    const ended = [];
    rt.on("close", (error) => ended.push(error));
    const reader = rt.channel.subscribe("c", () => {});
    reader.ready.catch(() => {});
    world.socket.pushes("close", { code, name: "why", message: "because" });
    await world.passes(60_000);
    assert.equal(rt.state, "closed");
    assert.equal(world.sockets.length, 1);
    assert.equal(ended[0].details.code, code);
    assert.equal(ended[0].retryable, false);
    await assert.rejects(reader.ready, { name: "connection_lost" });
  });
}

for (const code of [1006, 1001, 4000, 4001, 4499]) {
  test(`close ${code} reconnects, also without a word`, async () => {
    const world = new World();
    const rt = await world.connected();
    world.socket.breaks(code);
    await world.redials();
    assert.equal(rt.state, "connecting");
    assert.equal(world.sockets.length, 2);
  });
}

test("a refused hello stops, and `ready` tells why", async () => {
  const world = new World();
  const rt = world.connect({ token: "bad" });
  await settle();
  world.socket.opens();
  world.socket.says([1, 0, [401, "unauthenticated", "no", null], null]);
  await assert.rejects(rt.ready, { name: "unauthenticated" });
  assert.equal(rt.state, "closed");
});

test("a token is fetched anew for each connection, and after one has expired", async () => {
  const world = new World();
  let [fetched, fails] = [0, false];
  const token = async () => {
    if (fails) throw new Error("offline");
    fetched += 1;
    return `t${fetched}`;
  };
  const rt = world.connect({ token });
  await settle();
  world.socket.opens();
  assert.equal(world.socket.hello.token, "t1");
  world.socket.says([1, 0, [402, "token_expired", "old", null], null]);
  fails = true;
  await world.passes(1_000); // the token cannot be had: that is tried again
  assert.equal(rt.state, "connecting");
  fails = false;
  await world.redials();
  world.socket.opens();
  assert.equal(world.socket.hello.token, "t2");
  world.socket.pushes("close", { code: 4005, name: "token_expired", message: "" });
  await world.redials();
  world.socket.opens();
  assert.equal(world.socket.hello.token, "t3");
});

// --- signs of life ---

/** The server is gone without a trace: nothing comes, nothing fails. */
async function silence(world, step, most) {
  for (let waited = step; waited <= most; waited += step) {
    await world.passes(step);
    if (world.states.at(-1).state !== "connected") return waited;
  }
  return null;
}

test("a dead server is found within two intervals", async () => {
  const world = new World();
  await world.connected();
  const found = await silence(world, 500, 60_000);
  assert.ok(found <= 50_000, String(found));
  assert.match(world.states.at(-1).error.message, /no sign of life/);
});

test("any bytes are a sign of life", async () => {
  const world = new World();
  const rt = await world.connected();
  for (let n = 0; n < 20; n += 1) {
    await world.passes(20_000);
    world.socket.pushes("something", {});
  }
  assert.equal(rt.state, "connected");
  const pings = world.socket.frames.filter(([kind, method]) => kind === 2 && method === "server.ping");
  assert.ok(pings.length >= 8, "a page that only listens is heard, too");
});

test("a quiet server is asked, and its answer counts", async () => {
  const world = new World();
  const rt = await world.connected();
  for (let n = 0; n < 200; n += 1) {
    await world.passes(1_000);
    for (const [kind, id] of world.socket.frames.splice(0)) {
      if (kind === 0) world.socket.says([1, id, null, { now: 1 }]);
    }
  }
  assert.equal(rt.state, "connected");
});

test("late timers of a hidden page prove nothing", async () => {
  const world = new World();
  const rt = await world.connected();
  // The page stands still for minutes; then its timers run before what has come is read.
  for (let n = 0; n < 10; n += 1) {
    await world.passes(25_000); // the server is asked
    await world.passes(180_000);
    assert.equal(rt.state, "connected");
    world.socket.pushes("something", {});
    await world.passes(25_000);
    assert.equal(rt.state, "connected");
    world.socket.pushes("something", {});
  }
});

test("a dead server is found by late timers too, a little later", async () => {
  const world = new World();
  await world.connected();
  const found = await silence(world, 60_000, 600_000);
  assert.ok(found !== null && found <= 240_000, String(found));
});

// --- the page ---

test("a page that comes back checks its connection at once", async () => {
  for (const [pick, name, more] of [
    ["document", "visibilitychange"],
    ["document", "resume"],
    ["window", "online"],
    ["window", "offline"],
    ["window", "pageshow", { persisted: true }],
  ]) {
    const world = new World();
    const rt = await world.connected();
    dispatch(world[pick], name, more);
    assert.equal(world.socket.frames.at(-1)[2], "server.ping", name);
    await world.passes(4_000);
    assert.equal(rt.state, "connecting", name);
  }
});

test("a page that is hidden does not", async () => {
  const world = new World();
  await world.connected();
  world.document.visibilityState = "hidden";
  dispatch(world.document, "visibilitychange");
  dispatch(world.window, "pageshow", { persisted: false });
  assert.deepEqual(world.socket.frames.map((frame) => frame[2]), ["server.hello"]);
});

test("a page that comes back does not wait", async () => {
  const world = new World();
  world.chance = () => 1;
  world.connect();
  for (let n = 0; n < 9; n += 1) {
    await settle();
    world.socket.breaks();
    if (n < 8) await world.passes(world.states.at(-1).retry_ms);
  }
  assert.ok(world.states.at(-1).retry_ms > 10_000);
  const before = world.sockets.length;
  dispatch(world.window, "online");
  await world.passes(1);
  assert.equal(world.sockets.length, before + 1);
});

test("a page in the browser's history keeps no connection and resumes", async () => {
  const world = new World();
  const rt = await world.connected();
  dispatch(world.window, "pagehide", { persisted: true });
  assert.ok(world.socket.isClosed);
  dispatch(world.window, "pageshow", { persisted: true });
  await world.passes(1);
  world.socket.greets();
  assert.equal(rt.state, "connected");
});

test("after the end nothing of the page is listened to", async () => {
  const world = new World();
  const rt = await world.connected();
  rt.close();
  dispatch(world.window, "online");
  await world.passes(60_000);
  assert.equal(world.sockets.length, 1);
});

test("an unknown transport is refused at once", () => {
  assert.throws(() => new World().connect({ transport: "carrier-pigeon" }), /expected ws,sse,poll/);
});
