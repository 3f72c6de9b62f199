/**
 * The link: one line to the server at a time, replaced by another when it is lost.
 *
 * Owns which transport is used, when to try again, and whether the server still lives. Waits between
 * attempts have full jitter, and are not shorter than what the server asked for; each attempt that
 * fails moves on to the next transport, and while a lesser one works the better ones are tried again.
 * A page that comes back (from another tab, from sleep, from the browser's history, online) checks
 * its connection at once. Silence is judged by when timers really ran: those of a hidden page are
 * late by up to a minute, which says nothing about the server.
 */

import { Calls, closedBy } from "./calls.js";
import { Feeds } from "./feeds.js";
import { Http } from "./http.js";
import { Socket } from "./socket.js";
import { lostError } from "./values.js";

const VERSION = 1;
const CONNECT_MS = 10_000; // for one attempt, greeting included
const HEARTBEAT_MS = 25_000;
const CHECK_MS = 4_000; // for a sign of life when the page comes back
const LATE_MS = 1_000; // a timer that ran so much later proves nothing
const WAIT_MIN_MS = 100; // the first wait is at most this,
const WAIT_MAX_MS = 20_000; // and no wait is longer than this
const STABLE_MS = 5_000; // a line that lived so long starts the waits anew
const BETTER_MIN_MS = 1_000; // until a better transport is tried, and five times longer each time
const BETTER_MAX_MS = 600_000;
const REPLACED = 4502;
const TOKEN_EXPIRED = "token_expired";

const LINES = {
  ws: (link) => new Socket(link),
  sse: (link) => new Http(link, { polls: false }),
  poll: (link) => new Http(link, { polls: true }),
};

export class Link {
  line = null; // the greeted one
  state = "connecting"; // or connected, closed
  session; // of the last greeting
  user; // who the server says we are; before that, who we will say
  heardAt = 0;
  #signs = 0; // of life, ever

  #hello;
  #token;
  #kinds;
  #emit;
  #trial = null; // a line that is not greeted yet: {line, kind, timer}
  #kind = null; // of the line
  #attempts = 0; // that failed, or soon failed again
  #greetedAt = 0;
  #notBefore = 0; // what the server asked us to wait
  #retry; // timer of the next attempt
  #better; // timer of the next look at a better transport
  #betterMs = BETTER_MIN_MS;
  #betterLooks = 0;
  #beat; // timer of the heartbeat
  #check = null; // {timer} while a sign of life is waited for
  #listeners = [];

  constructor(url, { token, transport, retryWrites, ...hello }, env, emit) {
    this.url = url;
    this.env = env;
    this.#hello = hello;
    this.user = hello.user;
    this.#token = token;
    this.#emit = emit;
    this.#kinds = kindsOf(transport);
    this.calls = new Calls(env, retryWrites, () => this.line?.pump());
    this.feeds = new Feeds(env, emit);
    this.#watchPage();
    this.#dial();
  }

  get transport() {
    return this.line && this.#kind;
  }

  /** From now on only these; what is open goes on over the first that works. */
  use(transport) {
    this.#kinds = kindsOf(transport);
    if (this.state === "closed") return;
    this.#attempts = 0;
    this.#betterMs = BETTER_MIN_MS;
    const error = lostError("another transport was asked for");
    if (this.#trial) this.lost(this.#trial.line, error);
    if (this.line) this.lost(this.line, error);
    this.#wake();
  }

  // --- connecting ---

  #dial(kind = this.#kinds[this.#attempts % this.#kinds.length]) {
    this.env.clearTimeout(this.#retry);
    const line = LINES[kind](this);
    const late = () => this.lost(line, lostError(`no answer in ${CONNECT_MS} ms`));
    this.#trial = { line, kind, timer: this.env.setTimeout(late, CONNECT_MS) };
    this.#greeting().then(
      (hello) => this.#trial?.line === line && line.open(hello),
      (error) => this.lost(line, lostError(`there is no token: ${error}`)),
    );
  }

  async #greeting() {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    const positions = this.feeds.positions();
    const { session } = this;
    const heartbeat_ms = HEARTBEAT_MS;
    return { ...this.#hello, token, session, positions, version: VERSION, heartbeat_ms };
  }

  // --- what lines tell ---

  /** The line works: it takes the place of the one there was. */
  greeted(line, hello) {
    const { kind, timer } = this.#trial;
    this.env.clearTimeout(timer);
    this.#trial = null;
    if (this.line) this.#leave("a better connection took over");
    this.line = this.feeds.line = line;
    this.#kind = kind;
    this.#greetedAt = this.heardAt = Date.now();
    this.session = hello.session;
    this.user = hello.user ?? this.user;
    this.calls.frameBytesMax = hello.limits.frame_bytes_max;
    this.#startBeat(hello.heartbeat_ms ?? HEARTBEAT_MS);
    this.#planBetter();
    this.#tell("connected", { session: hello.session, resumed: hello.resumed, user: hello.user });
    queueMicrotask(() => this.line?.pump());
  }

  heard(line) {
    if (line !== this.line) return;
    this.heardAt = Date.now();
    this.#signs += 1;
  }

  pushed(line, name, params) {
    if (name === "close") this.#closes(line, params);
    else if (line !== this.line) return;
    else if (name === "drain") this.#drains(line, params);
    else this.feeds.pushed(name, params);
  }

  #closes(line, why) {
    this.#notBefore = Date.now() + (why.retry_after_ms ?? 0);
    this.lost(line, closedBy(why));
  }

  /** The server will stop: we go at the time that it spread for us, or when it closes before. */
  #drains(line, { retry_after_ms = 0 }) {
    this.#notBefore = Date.now() + retry_after_ms;
    this.env.setTimeout(() => this.lost(line, lostError("the server stops")), retry_after_ms);
  }

  lost(line, error) {
    const isTrial = line === this.#trial?.line;
    if (!isTrial && line !== this.line) return;
    if (isTrial) {
      this.env.clearTimeout(this.#trial.timer);
      this.#trial = null;
      line.close();
    } else {
      const isStable = Date.now() - this.#greetedAt > STABLE_MS;
      if (isStable) this.#attempts = 0;
      if (isStable && this.#kind === this.#kinds[0]) this.#betterMs = BETTER_MIN_MS;
      this.#leave(error.message);
    }
    if (this.#isFinal(error)) this.end(error);
    else if (this.line) this.#planBetter();
    else if (!this.#trial) this.#dialLater(isTrial, error);
  }

  #leave(cause) {
    const { line } = this;
    this.line = this.feeds.line = null;
    for (const timer of [this.#beat, this.#better, this.#check?.timer]) this.env.clearTimeout(timer);
    this.#check = null;
    line.close();
    this.calls.lost(cause);
  }

  /** Whether nothing but a change of the page or of the user can help. */
  #isFinal(error) {
    if (error.details?.code === REPLACED && this.#trial) return false; // by our own next line
    if (error.name === TOKEN_EXPIRED && typeof this.#token === "function") return false;
    return error.stops || (error.code > 0 && !error.retryable);
  }

  #dialLater(hasFailed, error) {
    const now = Date.now();
    const isShort = now - this.#greetedAt <= STABLE_MS;
    if (hasFailed || isShort) this.#attempts += 1;
    const longest = Math.min(WAIT_MAX_MS, WAIT_MIN_MS * 2 ** Math.min(this.#attempts, 16));
    const wait = Math.max(0, this.#notBefore - now) + this.env.Math.random() * longest;
    this.#retry = this.env.setTimeout(() => this.#dial(), wait);
    this.#tell("connecting", { error, retry_ms: wait });
  }

  #tell(state, more) {
    this.state = state;
    this.#emit("state", { state, transport: this.transport, ...more });
  }

  /** While a lesser transport works: sometimes tries each better one beside it. */
  #planBetter() {
    this.env.clearTimeout(this.#better);
    const better = this.#kinds.slice(0, this.#kinds.indexOf(this.#kind));
    if (!better.length) return;
    const wait = this.#betterMs * (0.5 + this.env.Math.random());
    this.#better = this.env.setTimeout(() => {
      this.#betterMs = Math.min(this.#betterMs * 5, BETTER_MAX_MS);
      this.#betterLooks += 1;
      if (!this.#trial) this.#dial(better[this.#betterLooks % better.length]);
    }, wait);
  }

  // --- signs of life ---

  #startBeat(interval) {
    this.env.clearTimeout(this.#beat);
    const beat = () => {
      const now = Date.now();
      if (now - this.heardAt >= interval) this.check(interval);
      else if (now - this.line.sentAt >= interval) this.line.rest();
      const due = Math.min(this.heardAt, this.line?.sentAt ?? now) + interval - now;
      if (this.line) this.#beat = this.env.setTimeout(beat, clamp(due, interval / 4, interval));
    };
    this.#beat = this.env.setTimeout(beat, interval);
  }

  /** The line is lost unless a sign of life comes within this time. */
  check(within = CHECK_MS) {
    const { line } = this;
    if (!line || this.#check) return;
    const before = this.#signs;
    let isExcused = false;
    const look = (due) => {
      const now = Date.now();
      const isLate = now - due > LATE_MS;
      if (this.#signs > before) {
        this.#check = null;
      } else if (isLate && !isExcused) {
        isExcused = true; // what came while the page stood still is read first
        this.#check.timer = this.env.setTimeout(look, within, now + within);
      } else {
        this.lost(line, lostError(`no sign of life in ${now - this.heardAt} ms`));
      }
    };
    this.#check = { timer: this.env.setTimeout(look, within, Date.now() + within) };
    line.probe();
  }

  // --- the page ---

  #watchPage() {
    const { env } = this;
    const page = env.document;
    this.#listen(env, "online", () => this.#wake());
    this.#listen(env, "offline", () => this.check());
    this.#listen(env, "pageshow", (event) => event.persisted && this.#wake());
    this.#listen(env, "pagehide", (event) => {
      // A page in the browser's history keeps no connection, else it would not be put there.
      if (event.persisted && this.line) this.lost(this.line, lostError("the page was left"));
    });
    this.#listen(page, "visibilitychange", () => page.visibilityState === "visible" && this.#wake());
    this.#listen(page, "resume", () => this.#wake());
  }

  #listen(target, name, callback) {
    if (!target?.addEventListener) return;
    target.addEventListener(name, callback);
    this.#listeners.push(() => target.removeEventListener(name, callback));
  }

  /** The page is there again: no waiting, except as the server asked. */
  #wake() {
    this.check();
    if (this.state === "closed" || this.line || this.#trial) return;
    this.#attempts = 0;
    this.env.clearTimeout(this.#retry);
    const wait = Math.max(0, this.#notBefore - Date.now());
    this.#retry = this.env.setTimeout(() => this.#dial(), wait);
  }

  // --- the end ---

  /** For good: what is open fails with `error`. */
  end(error) {
    if (this.state === "closed") return;
    if (this.line) this.#leave(error.message);
    this.#trial?.line.close();
    this.env.clearTimeout(this.#trial?.timer);
    this.env.clearTimeout(this.#retry);
    this.#trial = null;
    for (const forget of this.#listeners) forget();
    this.calls.end(error);
    this.feeds.end(error);
    this.#tell("closed", { error });
    this.#emit("close", error);
  }
}

function kindsOf(transport) {
  const kinds = transport?.length ? [transport].flat() : Object.keys(LINES);
  const strange = kinds.find((kind) => !(kind in LINES));
  if (strange) throw new TypeError(`transport is ${strange}, expected ${Object.keys(LINES)}`);
  return kinds;
}

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
