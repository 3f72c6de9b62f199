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

export interface SaleCreated {
  created: boolean;
  seed_sha256: string;
}

export interface SalePhase {
  state: string;
}

export interface Balance {
  stock: number;
  free: number;
  held: number;
  sold: number;
}

export interface Stock {
  items: Record<string, Balance>;
}

export interface SaleStatus {
  state: string;
  items: Record<string, Balance>;
  next?: string | null;
  total: Balance;
  waiting: number;
  active: number;
  refused: Record<string, number>;
  opens_at?: number | null;
  closes_at?: number | null;
  seed_sha256: string;
  seed?: string | null;
}

export interface Place {
  state: string;
  position?: number | null;
  eta_ms?: number | null;
  pass_id?: string | null;
  pass_expires_at?: number | null;
}

export interface Left {
  left: boolean;
}

export interface Hold {
  hold: string;
  items: Record<string, number>;
  expires_at: number;
}

export interface Order {
  order: string;
  state: string;
  user: string;
  items: Record<string, number>;
  at: number;
  reference?: string | null;
  refunded: Record<string, number>;
}

export interface WholePlace {
  state: string;
  position?: number | null;
  eta_ms?: number | null;
  pass_id?: string | null;
  pass_expires_at?: number | null;
  holds: Hold[];
  orders: Order[];
}

export interface Confirmed {
  order: string;
  items: Record<string, number>;
  already: boolean;
}

export interface Cancelled {
  cancelled: boolean;
  items: Record<string, number>;
}

export interface Refunded {
  order: string;
  items: Record<string, number>;
  already: boolean;
}

export interface Purchase {
  sale: string;
  state: string;
  hold: string;
  order?: string | null;
  user: string;
  items: Record<string, number>;
  reserved_at: number;
  expires_at: number;
  ended_at?: number | null;
  reference?: string | null;
  refunded: Record<string, number>;
}

export interface Seats {
  items: Record<string, number>;
  zone?: string | null;
  row?: string | null;
}

export interface Orders {
  orders: Order[];
  next?: number | null;
}

export interface Step {
  seq: number;
  at: number;
  step: string;
  caller?: string | null;
  user?: string | null;
  hold?: string | null;
  items?: Record<string, number> | null;
  reference?: string | null;
}

export interface Ledger {
  items: Step[];
  next?: number | null;
}

export interface Audit {
  ok: boolean;
  steps: number;
  items: number;
  problems: string[];
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

/** The commands `sale.*`. */
export interface Sale {
  /** Creates a sale, open at once without opens_at; seed_sha256 fixes its queue's order. */
  create(name: string, items: Readonly<Record<string, Data>>, options?: { per_user?: Int; hold_ms?: Int; opens_at?: Int; closes_at?: Int; queue?: Readonly<Record<string, Data>> } & WriteOptions): Promise<SaleCreated>;
  create(name: string, items: Readonly<Record<string, Data>>, per_user?: Int, hold_ms?: Int, opens_at?: Int, closes_at?: Int, options?: WriteOptions): Promise<SaleCreated>;
  /** Changes the terms of a sale, also while it runs; what is held stays as it is. */
  configure(name: string, options?: { per_user?: Int; hold_ms?: Int; opens_at?: Int; closes_at?: Int; queue?: Readonly<Record<string, Data>> } & WriteOptions): Promise<SalePhase>;
  configure(name: string, per_user?: Int, hold_ms?: Int, opens_at?: Int, closes_at?: Int, options?: WriteOptions): Promise<SalePhase>;
  /** Adds units, or takes free ones away where below 0; adds items that are new. */
  restock(name: string, items: Readonly<Record<string, Data>>, options?: WriteOptions): Promise<Stock>;
  /** Opens a sale before its time, or goes on after a pause. */
  open(name: string, options?: WriteOptions): Promise<SalePhase>;
  /** Stops admissions and reserves until sale.open; holds and the queue go on. */
  pause(name: string, options?: WriteOptions): Promise<SalePhase>;
  /** Ends joins and reserves; holds may be confirmed still, unless they are released. */
  close(name: string, options?: { release?: boolean } & WriteOptions): Promise<SalePhase>;
  close(name: string, release?: boolean, options?: WriteOptions): Promise<SalePhase>;
  /** Forgets a closed sale with its orders, its ledger and the keys it remembers. */
  delete(name: string, options?: WriteOptions): Promise<Deleted>;
  /** Names of sales that begin with prefix; next is the after of the next page. */
  list(options?: { prefix?: string; after?: string; limit?: Int } & ReadOptions): Promise<NamePage>;
  list(prefix?: string, after?: string, limit?: Int, options?: ReadOptions): Promise<NamePage>;
  /** The balance of each item, by name; stock is always free + held + sold. */
  status(name: string, options?: { after?: string; limit?: Int } & ReadOptions): Promise<SaleStatus>;
  status(name: string, after?: string, limit?: Int, options?: ReadOptions): Promise<SaleStatus>;
  /** A place in the queue, one a user; joining again tells where it is. */
  join(name: string, options?: { user?: string; challenge?: string } & WriteOptions): Promise<Place>;
  join(name: string, user?: string, challenge?: string, options?: WriteOptions): Promise<Place>;
  /** Gives up a place in the queue, or a pass; holds stay. */
  leave(name: string, options?: { user?: string } & WriteOptions): Promise<Left>;
  leave(name: string, user?: string, options?: WriteOptions): Promise<Left>;
  /** Where a user is in the queue, with her holds and her orders, newest first. */
  place(name: string, options?: { user?: string } & ReadOptions): Promise<WholePlace>;
  place(name: string, user?: string, options?: ReadOptions): Promise<WholePlace>;
  /** Holds all of a basket, or nothing; with hold the basket replaces that one's. */
  reserve(name: string, options?: { user?: string; items?: Readonly<Record<string, Int>>; best?: Readonly<Record<string, Data>>; pass_id?: string; hold?: string } & WriteOptions): Promise<Hold>;
  reserve(name: string, user?: string, options?: WriteOptions): Promise<Hold>;
  /** Sells what is held, or a part; late=retake what expired, too, while it is free. */
  confirm(hold: string, options?: { reference?: string; items?: Readonly<Record<string, Int>>; late?: "refuse" | "retake" } & WriteOptions): Promise<Confirmed>;
  confirm(hold: string, reference?: string, options?: WriteOptions): Promise<Confirmed>;
  /** Gives back what is held. */
  cancel(hold: string, options?: WriteOptions): Promise<Cancelled>;
  /** Lets a hold last longer; in all at most 5 times the sale's hold_ms. */
  extend(hold: string, ms: Int, options?: WriteOptions): Promise<Hold>;
  /** Takes an order back, or a part of it; its units are free again, or gone. */
  refund(order: string, options?: { items?: Readonly<Record<string, Int>>; reference?: string; restock?: boolean } & WriteOptions): Promise<Refunded>;
  /** A hold or an order, at any age: held, sold, cancelled, expired or refunded. */
  get(hold: string, options?: ReadOptions): Promise<Purchase>;
  /** The best adjacent seats that are free, front rows first, no single seat left alone. */
  best_available(name: string, options?: { zone?: string; count?: Int } & ReadOptions): Promise<Seats>;
  best_available(name: string, zone?: string, count?: Int, options?: ReadOptions): Promise<Seats>;
  /** Orders from the first on; next is the after of the next page. */
  orders(name: string, options?: { after?: Int; limit?: Int; state?: "sold" | "refunded"; user?: string } & ReadOptions): Promise<Orders>;
  orders(name: string, after?: Int, limit?: Int, state?: "sold" | "refunded", user?: string, options?: ReadOptions): Promise<Orders>;
  /** Every step of the sale, from the first on; next is the after of the next page. */
  ledger(name: string, options?: { after?: Int; limit?: Int } & ReadOptions): Promise<Ledger>;
  ledger(name: string, after?: Int, limit?: Int, options?: ReadOptions): Promise<Ledger>;
  /** Adds up the ledger, and compares it with what the sale says of itself. */
  audit(name: string, options?: ReadOptions): Promise<Audit>;
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
  readonly sale: Sale;
  readonly channel: Channel;
  readonly presence: Presence;
}
