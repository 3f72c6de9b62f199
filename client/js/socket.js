/**
 * A line over WebSocket: requests, replies and pushes on one connection, in order.
 *
 * A line is a way to the server from its greeting until it is lost; http.js has the other one. It is
 * told `open`, `pump` (calls wait), `follow` and `unfollow` (a channel), `probe` (provoke a sign of
 * life), `rest` (give one), `close`; it tells its link `greeted`, `heard`, `pushed` and `lost`.
 */

import { closedBy } from "./calls.js";
import { decode, fromWire, lostError } from "./values.js";

const PUSH = 2;
const OWN_ID = 0; // of what is asked outside of the calls: the greeting, probes
const BUFFERED_MAX = 1024 * 1024; // bytes that the browser holds; more waits here
const BUFFERED_LOOK_MS = 50;

export class Socket {
  sentAt = 0;
  #isGreeted = false;

  constructor(link) {
    this.link = link;
  }

  open(hello) {
    const { WebSocket } = this.link.env;
    if (!WebSocket) {
      this.link.lost(this, lostError("WebSocket is not here"));
      return;
    }
    this.hello = hello;
    this.socket = new WebSocket(`${this.link.url.replace(/^http/, "ws")}/ws`, "rt1.json");
    this.socket.onopen = () => this.#send([[0, OWN_ID, "server.hello", hello]]);
    this.socket.onmessage = (event) => this.#received(event.data);
    this.socket.onclose = ({ code, reason }) => {
      const why = { code, name: reason, message: "without a word" };
      this.link.lost(this, closedBy(why));
    };
  }

  #received(text) {
    this.link.heard(this);
    for (const line of text.split("\n")) {
      if (this.isClosed) return;
      if (!line) continue;
      const [kind, id, ...rest] = decode(JSON.parse(line));
      if (kind === PUSH) this.link.pushed(this, id, rest[0]);
      else if (id !== OWN_ID) this.link.calls.reply(id, ...rest);
      else if (!this.#isGreeted) this.#greeted(...rest);
    }
    if (this.#isGreeted && !this.isClosed) this.pump();
  }

  #greeted(error, hello) {
    if (error) {
      this.link.lost(this, fromWire(error));
      return;
    }
    this.#isGreeted = true;
    this.link.greeted(this, hello);
    this.link.feeds.resumed(this, this.hello.positions, hello);
  }

  #send(requests) {
    this.sentAt = Date.now();
    this.socket.send(requests.map((request) => JSON.stringify(request)).join("\n"));
  }

  pump() {
    while (this.socket.bufferedAmount < BUFFERED_MAX) {
      const requests = this.link.calls.take();
      if (!requests.length) return;
      this.#send(requests);
    }
    this.link.env.setTimeout(() => this.isClosed || this.pump(), BUFFERED_LOOK_MS);
  }

  follow(feed) {
    feed.again = feed.asking;
    if (feed.asking) return;
    feed.asking = true;
    const ask = feed.ask();
    const { feeds, calls } = this.link;
    calls.own(
      "channel.subscribe",
      [feed.name, ask.since ?? null, feed.presence],
      (reply) => feeds.replied(this, feed, reply, ask),
      ({ code, name, message, details }) =>
        feeds.replied(this, feed, { error: [code, name, message, details] }, ask),
    );
  }

  unfollow(name) {
    this.link.calls.own("channel.unsubscribe", [name], () => {}, () => {});
  }

  probe() {
    this.#send([[0, OWN_ID, "server.ping", []]]);
  }

  rest() {
    this.#send([[PUSH, "server.ping", []]]);
  }

  close() {
    this.isClosed = true;
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }
}
