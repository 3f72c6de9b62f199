/** Types of the browser client of rtserver; rtserver.js says what it promises. */

import type {
  Balance,
  Board,
  Channel,
  Counter,
  Data,
  Entry,
  Message,
  Nouns,
  Presence,
  Sale,
  Step,
  Subscribed,
  UserPresence,
  WholePlace,
  WriteOptions,
} from "./commands.js";

export type * from "./commands.js";

/** Which life of a channel, and the last offset that was read there. */
export type Position = readonly [epoch: string, offset: number];

/** Where to begin: a position, or the newest n messages. */
export type Since = Position | { readonly last: number };

export type Transport = "ws" | "sse" | "poll";

/** What the server refused, with the code and name of protocol.md section 8; or, with code 0,
 * `connection_lost`, `timeout` or `closed`. */
export class RtError extends Error {
  readonly code: number;
  readonly name: string;
  readonly details: any;
  /** Sending the same again may succeed and does no harm. */
  readonly retryable: boolean;
}

/** Messages are missing here. */
export class Gap {
  readonly channel: string;
  /** How many; null where nobody can know. */
  readonly lost: number | null;
  /** history: not kept any more; epoch: the channel began anew; slow: this reader was. */
  readonly why: "history" | "epoch" | "slow";
}

export interface ChannelMessage extends Message {
  channel: string;
}

/** Who came or went; of large channels only the count is told. */
export interface PresenceEvent {
  channel: string;
  users?: string[];
  count: number;
}

export interface SubscribeOptions {
  since?: Since;
  /** Asks for `join` and `leave` events, and for the count in the reply. */
  presence?: boolean;
}

/** One reader of a channel or a watched thing. With a callback it calls; without one, iterate it:
 * it holds 10,000 items, of a watched thing the newest state. Leaving the loop closes it. */
export interface Subscription<Item, Told = Item> extends AsyncIterable<Told> {
  readonly channel: string;
  /** The first subscribe reply; rejects with the refusal. */
  readonly ready: Promise<Subscribed & { presence?: { count: number } }>;
  /** Where to read on after the last item, good for `since`. */
  readonly position: Position | undefined;
  /** Of a watched thing: the state that was told last. */
  readonly value: Item | undefined;
  on(event: "item", callback: (item: Item) => void): () => void;
  on(event: "gap", callback: (gap: Gap) => void): () => void;
  on(event: "join" | "leave", callback: (event: PresenceEvent) => void): () => void;
  /** Each subscribe reply, also after a reconnect. */
  on(event: "subscribed", callback: (reply: Subscribed) => void): () => void;
  /** null: it was closed here. */
  on(event: "end", callback: (error: RtError | null) => void): () => void;
  close(): void;
}

/** Gets items by a callback, or by iterating what is returned. */
type Reader<Item> = Subscription<Item>;

export interface BoardState {
  entries: Entry[];
  count: number;
}

/** What is left of a sale, and how many wait. */
export interface SaleState {
  /** none: there is no such sale. */
  state: "none" | "scheduled" | "open" | "paused" | "closed";
  /** Of all items together. */
  total: Balance;
  /** Users in the queue, and of those who were let in; above 100 rounded up to two digits. */
  waiting: number;
  active: number;
  /** Empty where there are more than 100. */
  items: Record<string, Balance>;
  opens_at?: number | null;
  closes_at?: number | null;
  seed_sha256: string;
  /** Tells the order of the queue, once the sale has opened. */
  seed?: string | null;
}

export interface Channels extends Channel {
  /** Messages from now on, or from `since`; in order, once, over any number of reconnects. */
  subscribe(name: string, callback: (message: ChannelMessage) => void): Subscription<ChannelMessage>;
  subscribe(
    name: string,
    options: SubscribeOptions,
    callback: (message: ChannelMessage) => void,
  ): Subscription<ChannelMessage>;
  subscribe(
    name: string,
    options?: SubscribeOptions,
  ): Subscription<ChannelMessage, ChannelMessage | Gap>;
}

export interface Counters extends Counter {
  /** The value, now and whenever it changed. */
  watch(name: string, callback?: (value: number) => void): Reader<number>;
}

export interface Boards extends Board {
  /** The best n, now and whenever they changed. */
  watchTop(name: string, n: number, callback?: (state: BoardState) => void): Reader<BoardState>;
  /** A member and `radius` places (5) on each side. */
  watchAround(
    name: string,
    member: string,
    callback?: (state: BoardState) => void,
  ): Reader<BoardState>;
  watchAround(
    name: string,
    member: string,
    radius: number,
    callback?: (state: BoardState) => void,
  ): Reader<BoardState>;
}

export interface Presences extends Presence {
  watch(user: string, callback?: (state: UserPresence) => void): Reader<UserPresence>;
}

export interface Sales extends Sale {
  /** What is left and how many wait, now and whenever it changed. */
  watch(name: string, callback?: (state: SaleState) => void): Reader<SaleState>;
  /** A user's place in the queue (this client's own by default), her holds and her orders. */
  watchPlace(name: string, callback?: (place: WholePlace) => void): Reader<WholePlace>;
  watchPlace(
    name: string,
    user: string,
    callback?: (place: WholePlace) => void,
  ): Reader<WholePlace>;
  /** Every step of a sale, for its staff: from now on, or from `since`. Earlier ones are in
   * `ledger`, up to the `seq` that `position` has as its offset when this has begun. */
  followLedger(name: string, callback: (step: Step) => void): Subscription<Step>;
  followLedger(
    name: string,
    options: SubscribeOptions,
    callback: (step: Step) => void,
  ): Subscription<Step>;
  followLedger(name: string, options?: SubscribeOptions): Subscription<Step, Step | Gap>;
}

export interface StateEvent {
  state: "connecting" | "connected" | "closed";
  transport: Transport | null;
  /** Why there is no connection. */
  error?: RtError;
  /** When it is tried again. */
  retry_ms?: number;
  /** Of a new connection. */
  session?: string;
  resumed?: boolean;
  user?: string | null;
}

export type Client = Omit<Nouns, "channel" | "counter" | "board" | "presence" | "sale"> & {
  readonly channel: Channels;
  readonly counter: Counters;
  readonly board: Boards;
  readonly presence: Presences;
  readonly sale: Sales;
  readonly state: StateEvent["state"];
  readonly transport: Transport | null;
  readonly session: string | undefined;
  /** Who this client is; before the first connection, who `connect` was told. */
  readonly user: string | undefined;
  /** Resolves at the first connection; rejects when there will be none. */
  readonly ready: Promise<Client>;
  /** Changes which transports may be used, as in connect; what is open goes on without loss. */
  use(transport?: Transport | readonly Transport[]): void;
  /** Any method, also one that this client does not know. */
  call(
    method: string,
    params?: readonly Data[] | { readonly [name: string]: Data | undefined },
    options?: WriteOptions,
  ): Promise<any>;
  on(event: "state", callback: (state: StateEvent) => void): () => void;
  on(event: "gap", callback: (gap: Gap) => void): () => void;
  on(event: "join" | "leave", callback: (event: PresenceEvent) => void): () => void;
  /** It ended for good. */
  on(event: "close", callback: (error: RtError) => void): () => void;
  close(): void;
};

export interface ConnectOptions {
  user?: string;
  /** A token, or what fetches one: asked anew at each connection. */
  token?: string | (() => string | null | Promise<string | null>);
  role?: "anonymous" | "user" | "service" | "admin";
  /** Name of this program, for the server's lists. */
  client?: string;
  /** One, or several, best first; all by default. */
  transport?: Transport | readonly Transport[];
  /** false: a write that was not answered fails with outcome_unknown instead of being sent again. */
  retryWrites?: boolean;
  /** What is used of the browser, for other places and for tests. */
  env?: object;
}

/** A client of the server at `url` (of the page's own by default). It connects by itself. */
export function connect(url?: string, options?: ConnectOptions): Client;
