import assert from "node:assert/strict";
import test from "node:test";

import { cursorOf, placeIn } from "../../client/js/cursor.js";
import { json, LIMITS, settle, stream, World } from "./world.mjs";

const HELLO = { session: "h1", user: null, resumed: false, channels: {}, version: 1, limits: LIMITS };
const message = (offset) => ({ offset, data: offset, at: 0 });
const problem = (status, code, name) => json({ code, name, detail: "no", retryable: false }, status);

/** A server over HTTP of one channel; what is asked of it is in `asked`. */
class Server {
  streams = [];
  session = "h1";
  calls = [];
  blocks = new Set(); // paths that fail
  offset = 0;

  constructor(world) {
    this.world = world;
    world.respond = (request) => this.respond(request);
  }

  respond({ path, query, init, body }) {
    if (this.blocks.has(path)) throw new TypeError("fetch failed");
    if (path === "/v1/call/server.hello") return json({ ...HELLO, session: this.session });
    if (init.headers["Rt-Session"] !== this.session) return problem(401, 401, "unauthenticated");
    if (path === "/v1/call/server.ping") return json({ now: 1 });
    if (path === "/v1/batch") return json(body.map((call) => this.call(call)));
    return path === "/v1/stream" ? this.stream(query, init) : this.poll(query, init);
  }

  call([method, params, options]) {
    this.calls.push([method, params, options]);
    if (method === "counter.get") return { result: 7 };
    if (method === "channel.history") {
      return { result: { messages: [message(3), message(4)], epoch: "e.1", offset: 4, next: null } };
    }
    return { error: [200, "not_found", "no", null] };
  }

  stream(query, { signal }) {
    const opened = stream(signal);
    const replies = {};
    for (const channel of query.channels.split(",")) {
      const since = placeIn(query.last_event_id ?? "", channel);
      replies[channel] = channel === "bad" ? { error: [400, "forbidden", "no", null] } : this.reply(since);
    }
    this.streams.push({ ...opened, query });
    opened.send([2, "subscribed", { channels: replies }]);
    return opened.response;
  }

  reply(since) {
    const messages = [];
    for (let offset = (since?.[1] ?? this.offset) + 1; offset <= this.offset; offset += 1) {
      messages.push(message(offset));
    }
    return { epoch: "e.1", offset: this.offset, recovered: since !== undefined, messages };
  }

  publish() {
    this.offset += 1;
    this.streams.at(-1)?.send([2, "message", { channel: "c", ...message(this.offset) }]);
    this.arrived?.();
  }

  async poll(query, { signal }) {
    const since = placeIn(query.cursor, "c");
    const reply = this.reply(since);
    if (since && !reply.messages.length && query.timeout_ms !== "0") {
      await new Promise((resolve, reject) => {
        this.arrived = resolve;
        signal.addEventListener("abort", () => reject(signal.reason));
      });
      return this.poll(query, { signal });
    }
    const messages = since ? reply.messages.map((one) => [2, "message", { channel: "c", ...one }]) : [];
    const channels = since ? undefined : { c: reply };
    return json({ messages, channels, cursor: cursorOf([["c", ["e.1", reply.offset]]]) });
  }
}

async function over(transport, options = {}) {
  const world = new World();
  const server = new Server(world);
  const rt = world.connect({ transport, ...options });
  await world.passes(1);
  return { world, server, rt };
}

test("cursors", () => {
  const cursor = cursorOf([
    ["room:1", ["5f2c9d01.1", 7]],
    ["é", ["5f2c9d01.300", 2 ** 40]],
    ["old", ["another.1", 7]], // one cursor has one era
    ["$counter:a", ["w", 3]],
    ["transient", ["", 0]],
  ]);
  assert.match(cursor, /^5f2c9d01~[0-9a-f]+\.1\.7~[0-9a-f]+\.12c\.10000000000$/);
  assert.deepEqual(placeIn(`${cursor}!a.b`, "room:1"), ["5f2c9d01.1", 7]);
  assert.deepEqual(placeIn(cursor, "é"), ["5f2c9d01.300", 2 ** 40]);
  assert.equal(placeIn(cursor, "old"), undefined);
  assert.equal(cursorOf([]), "");
});

for (const transport of ["sse", "poll"]) {
  test(`${transport}: calls by POST, in batches, with the session`, async () => {
    const { world, server, rt } = await over(transport);
    assert.equal(rt.transport, transport);
    const [value, refused] = await Promise.allSettled([rt.counter.get("a"), rt.board.top("b")]);
    assert.equal(value.value, 7);
    assert.equal(refused.reason.name, "not_found");
    assert.equal(world.requests.filter(({ path }) => path === "/v1/batch").length, 1);
    assert.equal(server.calls.length, 2);
  });

  test(`${transport}: messages in order and once, also when it is asked anew`, async () => {
    const { world, server, rt } = await over(transport);
    const got = [];
    rt.channel.subscribe("c", (item) => got.push(item.offset));
    await world.passes(1);
    for (let n = 0; n < 3; n += 1) {
      server.publish();
      await settle();
    }
    const other = rt.channel.subscribe("d"); // another set of channels
    server.offset += 1; // published while nobody listens
    await world.passes(1);
    other.close();
    await world.passes(1);
    server.publish();
    await settle();
    assert.deepEqual(got, [1, 2, 3, 4, 5]);
  });

  test(`${transport}: a position, and the newest n`, async () => {
    const { world, server, rt } = await over(transport);
    server.offset = 4;
    const [last, since] = [[], []];
    rt.channel.subscribe("c", { since: { last: 2 } }, (item) => last.push(item.offset));
    await world.passes(1);
    server.publish();
    await world.passes(1);
    rt.channel.subscribe("c", { since: ["e.1", 1] }, (item) => since.push(item.offset));
    await world.passes(1);
    assert.deepEqual(last, [3, 4, 5]);
    assert.deepEqual(since, [2, 3, 4, 5]);
    assert.deepEqual(server.calls[0].slice(0, 2), ["channel.history", ["c", null, null, 2]]);
  });

  test(`${transport}: a session that ended is begun anew`, async () => {
    const { world, server, rt } = await over(transport);
    server.session = "h2";
    assert.equal(await rt.counter.get("a"), 7);
    assert.equal(rt.state, "connected");
    assert.equal(world.requests.filter(({ path }) => path.endsWith("hello")).length, 2);
  });

  test(`${transport}: a dead server is found`, async () => {
    const { world, rt } = await over(transport);
    rt.channel.subscribe("c", () => {});
    await world.passes(1);
    world.respond = () => new Promise(() => {});
    for (let waited = 0; waited < 60_000 && rt.state === "connected"; waited += 1_000) {
      await world.passes(1_000);
    }
    assert.equal(rt.state, "connecting");
  });

  test(`${transport}: a write is sent again under its key`, async () => {
    const { world, server, rt } = await over(transport);
    server.blocks.add("/v1/batch");
    const added = rt.call("thing.add", ["x"]);
    added.catch(() => {});
    await settle();
    server.blocks.clear();
    const first = world.requests.find(({ path }) => path === "/v1/batch").body[0][2];
    await world.passes(1_000);
    await assert.rejects(added, { name: "not_found" });
    assert.deepEqual(server.calls[0][2].idempotency_key, first.idempotency_key);
  });
}

test("several changes of what is followed are one request", async () => {
  const { world, server, rt } = await over("sse");
  for (let n = 0; n < 5; n += 1) rt.channel.subscribe(`c${n}`, () => {});
  await world.passes(1);
  assert.equal(server.streams.length, 1);
  assert.equal(server.streams[0].query.channels, "c0,c1,c2,c3,c4");
});

test("one channel that is refused ends, the others go on", async () => {
  const { world, server, rt } = await over("sse");
  const got = [];
  const bad = rt.channel.subscribe("bad");
  rt.channel.subscribe("c", (item) => got.push(item.offset));
  await world.passes(1);
  await assert.rejects(bad.ready, { name: "forbidden" });
  server.publish();
  await settle();
  assert.deepEqual(got, [1]);
});

test("a refusal of all channels ends them, not the client", async () => {
  const { world, server, rt } = await over("sse");
  server.stream = () => problem(403, 400, "forbidden");
  const bad = rt.channel.subscribe("bad");
  await world.passes(1);
  await assert.rejects(bad.ready, { name: "forbidden" });
  assert.equal(rt.state, "connected");
  assert.equal(await rt.counter.get("a"), 7);
});

test("presence is named in the request", async () => {
  const { world, server, rt } = await over("sse");
  rt.channel.subscribe("c", { presence: true }, () => {});
  rt.channel.subscribe("d", () => {});
  await world.passes(1);
  assert.equal(server.streams[0].query.presence, "c");
});

test("a stream that something cut goes on by itself", async () => {
  const { world, server, rt } = await over("sse");
  const got = [];
  rt.channel.subscribe("c", (item) => got.push(item.offset));
  await world.passes(1);
  await world.passes(20_000);
  server.streams[0].end();
  server.offset += 1;
  await settle();
  await world.passes(1);
  assert.deepEqual(got, [1]);
  assert.equal(rt.state, "connected");
  assert.ok(world.states.every(({ state }) => state === "connected"));
});

test("a poll that hears of a new epoch goes on in it, and says so once", async () => {
  const { world, server, rt } = await over("poll");
  const got = [];
  rt.channel.subscribe("c", (item) => got.push(item.offset));
  rt.on("gap", ({ lost, why }) => got.push(`${lost} ${why}`));
  server.offset = 7;
  await world.passes(1);
  const answers = [
    [[[2, "gap", { channel: "c", why: "epoch" }], [2, "message", { channel: "c", ...message(2) }]], 2],
    [[[2, "message", { channel: "c", ...message(3) }]], 3],
  ];
  const cursors = [];
  server.poll = async (query) => {
    cursors.push(query.cursor);
    const [messages, offset] = answers.shift() ?? (await new Promise(() => {}));
    return json({ messages, cursor: cursorOf([["c", ["f.9", offset]]]) });
  };
  rt.use("poll"); // asked anew, from what the readers know
  await world.passes(1);
  await settle();
  rt.use("poll");
  await world.passes(1);
  assert.deepEqual(got, ["null epoch", 2, 3]);
  assert.deepEqual(placeIn(cursors[0], "c"), ["e.1", 7]);
  assert.deepEqual(placeIn(cursors.at(-1), "c"), ["f.9", 3]);
});

test("what is subscribed to while a line greets is followed, too", async () => {
  const world = new World();
  const server = new Server(world);
  const rt = world.connect({ transport: "sse" });
  rt.channel.subscribe("c", () => {});
  let open;
  const gate = new Promise((resolve) => { open = resolve; });
  const stream = server.stream.bind(server);
  server.stream = async (...args) => {
    await gate;
    return stream(...args);
  };
  await world.passes(1);
  rt.channel.subscribe("d", () => {});
  open();
  await settle();
  await world.passes(1);
  assert.equal(server.streams.at(-1).query.channels, "c,d");
});

// --- from one transport to another ---

test("falls back when sockets fail, and returns when they work", async () => {
  const world = new World();
  const server = new Server(world);
  world.refusesSockets = true;
  const rt = world.connect({ transport: ["ws", "sse", "poll"] });
  const got = [];
  rt.channel.subscribe("c", (item) => got.push(item.offset));
  await world.passes(200);
  await world.passes(200);
  assert.equal(rt.transport, "sse");
  server.publish();
  await settle();
  const tried = world.sockets.length;
  for (let n = 0; n < 30; n += 1) await world.passes(10_000);
  const looks = world.sockets.length - tried;
  assert.ok(looks >= 3 && looks <= 6, `${looks} looks in 5 minutes, rarer and rarer`);
  assert.equal(rt.transport, "sse");
  world.refusesSockets = false;
  await world.redials(700_000);
  server.publish(); // over the stream, while the socket greets
  await settle();
  const channels = { c: { epoch: "e.1", offset: 3, recovered: true, messages: [message(2), message(3)] } };
  assert.deepEqual((world.socket.opens(), world.socket.hello.positions), { c: ["e.1", 1] });
  world.socket.greets({ channels, resumed: true });
  await settle();
  assert.equal(rt.transport, "ws");
  world.socket.pushes("message", { channel: "c", ...message(4) });
  assert.deepEqual(got, [1, 2, 3, 4]);
});

test("polls where streams do not get through", async () => {
  const world = new World();
  const server = new Server(world);
  world.refusesSockets = true;
  server.stream = (query, { signal }) => { // a proxy that holds the response back
    return new Promise((resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const rt = world.connect({ transport: ["ws", "sse", "poll"] });
  const got = [];
  rt.channel.subscribe("c", (item) => got.push(item.offset));
  for (let waited = 0; waited < 30_000 && rt.transport !== "poll"; waited += 500) await world.passes(500);
  assert.equal(rt.transport, "poll");
  server.publish();
  await settle();
  assert.deepEqual(got, [1]);
});

test("the older connection's `replaced` by our own next one does not stop us", async () => {
  const world = new World();
  const server = new Server(world);
  world.refusesSockets = true;
  const rt = world.connect({ transport: ["ws", "sse"] });
  rt.channel.subscribe("c", () => {});
  await world.passes(400);
  await world.passes(400);
  assert.equal(rt.transport, "sse");
  world.refusesSockets = false;
  await world.redials();
  server.streams.at(-1).send([2, "close", { code: 4502, name: "replaced", message: "" }]);
  await settle();
  world.socket.greets();
  assert.equal(rt.state, "connected");
  assert.equal(rt.transport, "ws");
});

test("use: another transport, and nothing is lost", async () => {
  const { world, server, rt } = await over("sse");
  const got = [];
  rt.channel.subscribe("c", (item) => got.push(item.offset));
  await world.passes(1);
  server.publish();
  await settle();
  const value = rt.counter.get("a");
  rt.use("poll");
  server.offset += 1;
  await world.passes(1);
  await world.passes(1);
  assert.equal(rt.transport, "poll");
  assert.deepEqual(got, [1, 2]);
  assert.equal(await value, 7);
  rt.use();
  await world.passes(1);
  world.socket.greets();
  assert.equal(rt.transport, "ws");
  rt.use(["ws"]);
  rt.use("sse");
  await world.passes(1);
  assert.equal(rt.transport, "sse");
  assert.throws(() => rt.use("pigeon"), TypeError);
});

test("a session that ends at once is not asked for without a pause", async () => {
  const world = new World();
  const server = new Server(world);
  const respond = world.respond;
  world.respond = (request) => {
    if (world.requests.length > 50) throw new TypeError("asked without end");
    return request.path === "/v1/call/server.hello" ? respond(request) : problem(401, 401, "unauthenticated");
  };
  const rt = world.connect({ transport: "poll" });
  await settle();
  rt.counter.get("x").catch(() => {});
  await settle();
  assert.ok(world.requests.length < 8, `${world.requests.length} requests`);
  assert.equal(rt.state, "connecting");
  world.respond = respond;
  await world.passes(5_000);
  assert.equal(rt.state, "connected");
  assert.equal(server.calls.length, 1);
  rt.close();
});

test("two requests that find the session ended go on with the same new one", async () => {
  const { world, server, rt } = await over("poll");
  const respond = world.respond;
  const got = [];
  rt.channel.subscribe("c", (item) => got.push(item.offset));
  await world.passes(1);
  server.session = "h2"; // as after a night's sleep
  world.respond = async (request) => {
    await settle();
    return respond(request);
  };
  world.window.dispatchEvent(new Event("online")); // asks for a sign of life: another poll
  const value = rt.counter.get("x");
  for (let n = 0; n < 20; n += 1) await world.passes(1);
  assert.equal(rt.state, "connected");
  assert.equal(await value, 7);
  server.publish();
  for (let n = 0; n < 10; n += 1) await world.passes(1);
  assert.deepEqual(got, [1]);
  const hellos = world.requests.filter(({ path }) => path === "/v1/call/server.hello");
  assert.equal(hellos.length, 2);
  assert.ok(hellos.every(({ init }) => !init.headers["Rt-Session"]));
  rt.close();
});
