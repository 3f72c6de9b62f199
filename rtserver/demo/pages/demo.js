/** The demo's page: what the client tells becomes what you see. `rt` is in the console, too. */

import { connect, Gap } from "./client/rtserver.js";

const LISTED = 200; // messages and events that the page keeps
const ROOM = "room:tower";
const NAMES = { ws: "WebSocket", sse: "event stream + POST", poll: "long polling + POST" };

const $ = (id) => document.getElementById(id);
const numbers = new Intl.NumberFormat("en");
const moves = !matchMedia("(prefers-reduced-motion: reduce)").matches;

const asked = new URLSearchParams(location.search);
const me = (asked.get("name") ?? "").replace(/[\s,]/g, "") || `guest-${Math.floor(Math.random() * 9000) + 1000}`;
const transport = (asked.get("transport") ?? "").split(",").filter(Boolean);

const rt = connect(location.origin, { user: me, client: "demo-page", transport });
globalThis.rt = rt;

function element(tag, text = "", className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

/** Adds a line to a list that follows its end, unless somebody reads further up. */
function add(list, ...content) {
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const line = element("li");
  line.append(...content);
  list.append(line);
  while (list.children.length > LISTED) list.firstChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
  return line;
}

// --- the connection ---

function tell(text) {
  const time = element("time", new Date().toLocaleTimeString("en-GB"));
  add($("events"), time, text);
}

rt.on("state", ({ state, transport: kind, error, retry_ms, resumed }) => {
  $("state").textContent = $("state").dataset.state = state;
  $("transport").textContent = kind ? `over ${NAMES[kind]}` : "";
  if (state === "connected") tell(`connected over ${NAMES[kind]}${resumed ? ", session resumed" : ""}`);
  else tell(`${error?.message ?? state}${retry_ms === undefined ? "" : `; next try in ${Math.round(retry_ms)} ms`}`);
});
rt.on("gap", ({ channel, lost, why }) => tell(`${lost ?? "some"} messages of ${channel} are lost (${why})`));

$("transports").addEventListener("change", ({ target }) => rt.use(target.value || undefined));

// --- counters ---

for (const shown of document.querySelectorAll("[data-counter]")) {
  rt.counter.watch(shown.dataset.counter, (value) => {
    shown.textContent = numbers.format(value);
  });
}
$("applaud").addEventListener("click", () => {
  rt.counter.add("live:applause").catch((error) => tell(`applause: ${error.message}`));
});

// --- the board ---

const places = new Map(); // member: its line

rt.board.watchTop("live:delays", 10, ({ entries, count }) => {
  $("board-count").textContent = numbers.format(count);
  const before = new Map([...places].map(([member, line]) => [member, line.offsetTop]));
  const best = Math.max(1, ...entries.map((entry) => entry.score));
  const shown = new Set(entries.map((entry) => entry.member));
  for (const [member, line] of places) {
    if (shown.has(member)) continue;
    line.remove();
    places.delete(member);
  }
  for (const { rank, member, score } of entries) {
    const line = places.get(member) ?? boardLine(member);
    line.querySelector(".rank").textContent = rank;
    line.querySelector(".score").textContent = `${numbers.format(score)} min`;
    line.querySelector(".bar").style.width = `${(100 * score) / best}%`;
    $("board").append(line);
  }
  if (!moves) return;
  for (const [member, line] of places) {
    const moved = before.has(member) ? before.get(member) - line.offsetTop : 0;
    if (moved) line.animate([{ transform: `translateY(${moved}px)` }, {}], { duration: 350, easing: "ease-out" });
  }
});

function boardLine(member) {
  const line = element("li");
  line.append(
    element("span", "", "rank"),
    element("span", member, "member"),
    element("span", "", "bar"),
    element("span", "", "score"),
  );
  places.set(member, line);
  return line;
}

// --- the ticker ---

const tiles = new Map(); // carrier: its tile

rt.channel.subscribe("ticker:carriers", ({ key, data }) => {
  let tile = tiles.get(key);
  if (!tile) {
    tile = element("li");
    tile.append(element("b", key), element("span"));
    tiles.set(key, tile);
    const sorted = [...tiles].sort(([one], [other]) => (one < other ? -1 : 1));
    $("ticker").replaceChildren(...sorted.map(([, one]) => one));
  }
  const sign = data.change < 0 ? "▼" : "▲";
  const price = tile.lastChild;
  price.textContent = `${data.price.toFixed(2)} ${sign}`;
  price.className = data.change < 0 ? "down" : "up";
  price.title = `${data.change.toFixed(2)} with the last departure`;
});

// --- the room ---

$("me").textContent = me;

const room = rt.channel.subscribe(ROOM, { since: { last: 50 }, presence: true }, ({ offset, data, sender }) => {
  const line = add($("messages"), element("b", sender ?? "somebody"), String(data?.text ?? ""));
  line.dataset.offset = offset;
});
room.on("gap", (gap) => {
  if (gap instanceof Gap) add($("messages"), element("span", `${gap.lost ?? "some"} messages are missing`, "gap"));
});
for (const event of ["subscribed", "join", "leave"]) room.on(event, showPeople);

let peopleAsked = false;

async function showPeople() {
  if (peopleAsked) return; // the answer to come will say it
  peopleAsked = true;
  await new Promise((resolve) => setTimeout(resolve, 100));
  peopleAsked = false;
  try {
    const { users, count } = await rt.channel.presence(ROOM, { limit: 20 });
    const named = users.map(({ user, devices }) => element("span", devices > 1 ? `${user} ×${devices}` : user));
    $("people").replaceChildren(`${numbers.format(count)} here: `, ...named);
  } catch (error) {
    if (!error.retryable) tell(`who is here: ${error.message}`);
  }
}

$("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value;
  $("text").value = "";
  try {
    await rt.channel.publish(ROOM, { text });
  } catch (error) {
    tell(`not sent: ${error.message}`);
    $("text").value ||= text;
  }
});
