/** The commands and what they answer. Made by client/generate.py from the server's tables; change those. */

/** Any value that the protocol carries. */
export type Data =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Data[]
  | { readonly [key: string]: Data | undefined };

/** An integer; beyond 2^53 as bigint. Results are bigint there, too, whatever their type says. */
export type Int = number | bigint;

/** [code, name, message, details] of an item that failed where others did not. */
export interface ItemError {
  error: [number, string, string, any];
}

/** Lists of which single items may have failed. */
export type OrErrors<T> = {
  [K in keyof T]: T[K] extends (infer Item)[] ? (Item | ItemError)[] : T[K];
};

/** timeout_ms: that the call may take in all, reconnecting included; 0: for ever. */
export interface ReadOptions {
  timeout_ms?: number;
}

/** What a write may ask beside its parameters (protocol.md section 3). */
export interface WriteOptions extends ReadOptions {
  idempotency_key?: string;
  ack?: "memory" | "logged" | "synced";
  source?: readonly [name: string, partition: Int, offset: Int];
  as_user?: string;
  address?: string;
}

export interface Authenticated {
  user?: string | null;
  role: string;
  expires_at?: number | null;
}

export interface Kicked {
  ended: number;
}

export interface Pong {
  now: number;
}

export interface ServerTime {
  now: number;
  wall: number;
  offset_ms: number;
  manual: boolean;
}

export interface Jumped {
  jumped_ms: number;
  now: number;
}

export interface SnapshotDone {
  name: string;
  seq: number;
  bytes: number;
  created: boolean;
}

export interface Values {
  values: number[];
}

export interface Within {
  value: number;
  applied: number;
}

export interface CounterItem {
  name: string;
  value: number;
}

export interface CounterPage {
  items: CounterItem[];
  next?: string | null;
}

export interface Deleted {
  deleted: boolean;
}

export interface Created {
  created: boolean;
}

export interface Submission {
  score: number;
  rank: number;
  previous_rank?: number | null;
  changed: boolean;
}

export interface Submissions {
  items: Submission[];
}

export interface Rank {
  rank?: number | null;
  score?: number | null;
  percentile?: number | null;
  error: number;
}

export interface Entry {
  rank: number;
  member: string;
  score: number;
  meta?: any | null;
}

export interface Entries {
  entries: Entry[];
  count: number;
  next?: number | null;
}

export interface Removed {
  removed: number;
}

export interface Unbanned {
  unbanned: number;
}

export interface BoardInfo {
  name: string;
  order: string;
  mode: string;
  score: string;
  windows: string[];
  count: number;
  banned: number;
  created_at: number;
}

export interface NamePage {
  items: string[];
  next?: string | null;
}

export interface Published {
  offset: number;
  epoch: string;
}

export interface PublishedMany {
  items: Published[];
}

export interface Message {
  offset: number;
  data: any;
  at: number;
  key?: string | null;
  sender?: string | null;
}

export interface History {
  messages: Message[];
  epoch?: string | null;
  offset: number;
  next?: number | null;
}

export interface Present {
  user: string;
  devices: number;
  since: number;
}

export interface PresencePage {
  users: Present[];
  count: number;
  anonymous: number;
  next?: string | null;
}

export interface NamespaceRules {
  namespace: string;
  class: string;
  history_count: number;
  history_bytes: number;
  history_ms: number;
  idle_ms: number;
  subscribe: string;
  publish: string;
  presence: string;
  presence_events_max: number;
}

export interface UserPresence {
  user: string;
  status: string;
  note?: string | null;
  devices: number;
  idle: boolean;
  last_seen?: number | null;
}

export interface UserPresences {
  users: UserPresence[];
}

export interface PresenceCount {
  count: number;
}

export interface Subscribed {
  class: string;
  epoch: string;
  offset: number;
  recovered: boolean;
  messages: Message[];
  state?: any | null;
  presence?: PresenceCount | null;
}

/** The commands `server.*`. */
export interface Server {
  /** Shows a fresh token of the same user before the last one expires. */
  auth(token: string, options?: ReadOptions): Promise<Authenticated>;
  /** Closes a user's connections, or ends what she hears of a channel, and keeps her out. */
  kick(user: string, options?: { channel?: string; block_ms?: Int } & ReadOptions): Promise<Kicked>;
  kick(user: string, channel?: string, block_ms?: Int, options?: ReadOptions): Promise<Kicked>;
  /** Answers at once with the server's time. */
  ping(options?: ReadOptions): Promise<Pong>;
  /** What this server is: versions, compiled modules, limits, where it keeps data. */
  info(options?: ReadOptions): Promise<any>;
  /** What it holds and has done: entities, connections, log, turns, errors by name. */
  stats(options?: ReadOptions): Promise<any>;
  /** The server's time and how far the system's wall clock is ahead of it. */
  time(options?: ReadOptions): Promise<ServerTime>;
  /** Takes over a wall clock that is ahead, and ends the alarm about the difference. */
  accept_time(options?: ReadOptions): Promise<Jumped>;
  /** Moves the time forward (only with serve --manual-clock); what is due fires next. */
  advance(ms: Int, options?: ReadOptions): Promise<Jumped>;
  /** Makes a snapshot by a separate process and answers when it is verified. */
  snapshot(options?: ReadOptions): Promise<SnapshotDone>;
}

/** The commands `counter.*`. */
export interface Counter {
  /** Adds delta and returns the new value; ttl_ms runs from the counter's creation. */
  add(name: string, options?: { delta?: Int; ttl_ms?: Int } & WriteOptions): Promise<number>;
  add(name: string, delta?: Int, ttl_ms?: Int, options?: WriteOptions): Promise<number>;
  /** Adds to many counters in order; a failed item is {error} in its place. */
  add_many(items: readonly Data[], options?: WriteOptions): Promise<OrErrors<Values>>;
  /** Adds delta only as far as the value stays within min and max. */
  add_within(name: string, delta: Int, options?: { min?: Int; max?: Int; on_limit?: "reject" | "clamp" } & WriteOptions): Promise<Within>;
  add_within(name: string, delta: Int, min?: Int, max?: Int, on_limit?: "reject" | "clamp", options?: WriteOptions): Promise<Within>;
  /** The value; 0 for a counter that does not exist. */
  get(name: string, options?: ReadOptions): Promise<number>;
  /** The values of many counters, in the order asked. */
  get_many(names: readonly string[], options?: ReadOptions): Promise<Values>;
  /** Gives the counter a value; a running time to live goes on. */
  set(name: string, value: Int, options?: WriteOptions): Promise<number>;
  /** Counters whose name begins with prefix, by name; next is the after of the next page. */
  list(options?: { prefix?: string; after?: string; limit?: Int } & ReadOptions): Promise<CounterPage>;
  list(prefix?: string, after?: string, limit?: Int, options?: ReadOptions): Promise<CounterPage>;
  /** Deletes a counter; deleted is false where there was none. */
  delete(name: string, options?: WriteOptions): Promise<Deleted>;
}

/** The commands `board.*`. */
export interface Board {
  /** Creates a board; created is false when the same one exists. */
  create(name: string, options?: { order?: "desc" | "asc"; mode?: "best" | "last" | "sum"; score?: "int" | "float" } & WriteOptions): Promise<Created>;
  create(name: string, order?: "desc" | "asc", mode?: "best" | "last" | "sum", score?: "int" | "float", options?: WriteOptions): Promise<Created>;
  /** Submits a score, in the board's mode unless given; the board springs up. */
  submit(name: string, member: string, score: Int, options?: { mode?: "best" | "last" | "sum"; meta?: Data; ttl_ms?: Int } & WriteOptions): Promise<Submission>;
  submit(name: string, member: string, score: Int, mode?: "best" | "last" | "sum", meta?: Data, ttl_ms?: Int, options?: WriteOptions): Promise<Submission>;
  /** Submits many scores in order; a failed item is {error} in its place. */
  submit_many(name: string, items: readonly Data[], options?: WriteOptions): Promise<OrErrors<Submissions>>;
  /** A member's rank; rank and score are nil for an unknown member. */
  rank(name: string, member: string, options?: { window?: "all"; period?: "current"; kind?: "ordinal" | "competition" | "dense" } & ReadOptions): Promise<Rank>;
  rank(name: string, member: string, window?: "all", period?: "current", kind?: "ordinal" | "competition" | "dense", options?: ReadOptions): Promise<Rank>;
  /** The best members, from place offset on. */
  top(name: string, options?: { limit?: Int; offset?: Int; window?: "all"; period?: "current"; kind?: "ordinal" | "competition" | "dense" } & ReadOptions): Promise<Entries>;
  top(name: string, limit?: Int, offset?: Int, window?: "all", period?: "current", kind?: "ordinal" | "competition" | "dense", options?: ReadOptions): Promise<Entries>;
  /** A member with up to radius neighbours on each side; empty for an unknown member. */
  around(name: string, member: string, options?: { radius?: Int; window?: "all"; period?: "current"; kind?: "ordinal" | "competition" | "dense" } & ReadOptions): Promise<Entries>;
  around(name: string, member: string, radius?: Int, window?: "all", period?: "current", kind?: "ordinal" | "competition" | "dense", options?: ReadOptions): Promise<Entries>;
  /** Members with scores from low to high, both included, best first. */
  by_score(name: string, low: Int, high: Int, options?: { limit?: Int; offset?: Int; window?: "all"; period?: "current"; kind?: "ordinal" | "competition" | "dense" } & ReadOptions): Promise<Entries>;
  by_score(name: string, low: Int, high: Int, limit?: Int, offset?: Int, window?: "all", period?: "current", kind?: "ordinal" | "competition" | "dense", options?: ReadOptions): Promise<Entries>;
  /** The named members that are on the board, by rank (a board of friends). */
  members(name: string, members: readonly string[], options?: { window?: "all"; period?: "current"; kind?: "ordinal" | "competition" | "dense" } & ReadOptions): Promise<Entries>;
  members(name: string, members: readonly string[], window?: "all", period?: "current", kind?: "ordinal" | "competition" | "dense", options?: ReadOptions): Promise<Entries>;
  /** How many members the board has. */
  count(name: string, options?: { window?: "all"; period?: "current" } & ReadOptions): Promise<number>;
  count(name: string, window?: "all", period?: "current", options?: ReadOptions): Promise<number>;
  /** Removes members; with ban they cannot come back until unbanned. */
  remove(name: string, members: readonly string[], options?: { ban?: boolean } & WriteOptions): Promise<Removed>;
  remove(name: string, members: readonly string[], ban?: boolean, options?: WriteOptions): Promise<Removed>;
  /** Lets banned members submit again. */
  unban(name: string, members: readonly string[], options?: WriteOptions): Promise<Unbanned>;
  /** What a board is and how many members it has. */
  info(name: string, options?: ReadOptions): Promise<BoardInfo>;
  /** Names of boards that begin with prefix; next is the after of the next page. */
  list(options?: { prefix?: string; after?: string; limit?: Int } & ReadOptions): Promise<NamePage>;
  list(prefix?: string, after?: string, limit?: Int, options?: ReadOptions): Promise<NamePage>;
  /** Deletes a board with all its members, at once for everybody. */
  delete(name: string, options?: WriteOptions): Promise<Deleted>;
}

/** The commands `channel.*`. */
export interface Channel {
  /** Publishes data to all who subscribe, and to the history unless it is transient. */
  publish(channel: string, data: Data, options?: { key?: string } & WriteOptions): Promise<Published>;
  publish(channel: string, data: Data, key?: string, options?: WriteOptions): Promise<Published>;
  /** Publishes many messages in order; a failed item is {error} in its place. */
  publish_many(items: readonly Data[], options?: WriteOptions): Promise<OrErrors<PublishedMany>>;
  /** Messages in ascending order: the first after an offset, or the last before one. */
  history(channel: string, options?: { after?: Int; before?: Int; limit?: Int } & ReadOptions): Promise<History>;
  history(channel: string, after?: Int, before?: Int, limit?: Int, options?: ReadOptions): Promise<History>;
  /** Users who are on a channel, by name; next is the after of the next page. */
  presence(channel: string, options?: { after?: string; limit?: Int } & ReadOptions): Promise<PresencePage>;
  presence(channel: string, after?: string, limit?: Int, options?: ReadOptions): Promise<PresencePage>;
  /** Changes how the channels of a namespace behave; answers all that is in force. */
  configure(namespace: string, options?: { class?: "must" | "latest" | "transient"; history_count?: Int; history_bytes?: Int; history_ms?: Int; idle_ms?: Int; subscribe?: "anonymous" | "user" | "service" | "admin"; publish?: "anonymous" | "user" | "service" | "admin"; presence?: "anonymous" | "user" | "service" | "admin"; presence_events_max?: Int; reset?: boolean } & WriteOptions): Promise<NamespaceRules>;
  configure(namespace: string, class_?: "must" | "latest" | "transient", history_count?: Int, history_bytes?: Int, history_ms?: Int, idle_ms?: Int, subscribe?: "anonymous" | "user" | "service" | "admin", publish?: "anonymous" | "user" | "service" | "admin", presence?: "anonymous" | "user" | "service" | "admin", presence_events_max?: Int, reset?: boolean, options?: WriteOptions): Promise<NamespaceRules>;
}

/** The commands `presence.*`. */
export interface Presence {
  /** Says how the caller is, until she is offline; "idle" speaks of this device only. */
  set(status: string, options?: { note?: string } & ReadOptions): Promise<UserPresence>;
  set(status: string, note?: string, options?: ReadOptions): Promise<UserPresence>;
  /** How users are, in the order asked; who has no connection is offline. */
  get(users: readonly string[], options?: ReadOptions): Promise<UserPresences>;
}

export interface Nouns {
  readonly server: Server;
  readonly counter: Counter;
  readonly board: Board;
  readonly channel: Channel;
  readonly presence: Presence;
}
