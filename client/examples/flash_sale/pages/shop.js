/**
 * The shop's page: what two watches tell becomes what you see, and each button is one command.
 *
 * `sale` (what is left, for everybody) and `place` (where this visitor is, her holds, her orders) are
 * whole states, and all of the page is drawn from them; so a reconnect needs no code here. Words come
 * from words.js. `rt` is in the console, too.
 */

import { connect } from "./client/rtserver.js";
import { basket, clock, count, nameOf, refusal, roughly, seatOf, standing, stock } from "./words.js";

const SALE = "starlight";
const TICK_MS = 250;
const TOLD_MS = [60_000, 30_000, 10_000]; // what is left of a hold or a pass when that is read out
const SEAT_WORDS = {
  free: "free",
  held: "on hold for somebody",
  sold: "sold",
  mine: "held for you",
  bought: "yours",
};

const $ = (id) => document.getElementById(id);

const me = visitor();
const rt = connect(location.origin, { user: me, role: "user", client: "flash-sale-page" });
globalThis.rt = rt;

let sale = null;
let place = null;
let skewMs = 0; // of the server's clock against ours
let busy = 0; // commands under way
const given = new Set(); // holds that ended because she wanted that
const told = new Map(); // of a deadline: which of TOLD_MS were read out

/** ?user= or a name of chance, which a reload keeps. */
function visitor() {
  const asked = new URL(location);
  const name = asked.searchParams.get("user")?.trim();
  if (name) return name;
  const drawn = `guest-${crypto.getRandomValues(new Uint16Array(1))[0]}`;
  asked.searchParams.set("user", drawn);
  history.replaceState(null, "", asked);
  return drawn;
}

function element(tag, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(tag), { textContent: text });
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text; // unchanged text is not read out again
}

const now = () => Date.now() + skewMs;

// --- the connection ---

$("me").textContent = me;

rt.on("state", ({ state, error, retry_ms }) => {
  $("lost").hidden = state === "connected";
  if (state === "connected") {
    setClock();
  } else if (state === "closed") {
    put($("lost"), `The connection has ended: ${error?.message ?? "reload the page"}.`);
  } else {
    const when = retry_ms === undefined ? "" : ` Trying again in ${roughly(retry_ms)}.`;
    put($("lost"), `No connection. Your place is kept for a while.${when}`);
  }
  draw();
});

async function setClock() {
  try {
    skewMs = (await rt.server.ping()).now - Date.now();
  } catch (error) {
    if (!error.retryable) tell(error.message);
  }
}

// --- what there is ---

rt.sale.watch(SALE, (state) => {
  sale = state;
  draw();
}).ready.catch((error) => tell(error.message));

rt.sale.watchPlace(SALE, (state) => {
  if (place) notice(place, state);
  place = state;
  draw();
}).ready.catch((error) => tell(error.message));

/** What happened to her without her doing. */
function notice(before, after) {
  const orders = new Set(after.orders.map(({ order }) => order.slice(1)));
  const holds = new Set(after.holds.map(({ hold }) => hold));
  for (const { hold, items } of before.holds) {
    if (holds.has(hold) || orders.has(hold.slice(1)) || given.delete(hold)) continue;
    tell(`Time is up: ${basket(items)} went back.`);
  }
  if (after.state === "none" && before.state !== "none") {
    const wished = given.delete("place");
    if (before.state === "admitted" && !wished) tell("Your pass has run out.");
  }
}

// --- drawing ---

function draw() {
  if (!sale || !place) return;
  drawFacts();
  drawPlace();
  drawSeats();
  drawGoods();
  drawHolds();
  drawOrders();
  const isReady = rt.state === "connected" && !busy;
  for (const button of document.querySelectorAll("button")) {
    const mayBuy = !("buys" in button.dataset) || (isInside() && button.dataset.left !== "0");
    button.setAttribute("aria-disabled", String(!isReady || !mayBuy));
  }
  tick();
}

// Not `disabled`: what a keyboard is on must not vanish under it, and a seat can be read out when it
// cannot be had.
document.addEventListener("click", (event) => {
  if (!event.target.closest("[aria-disabled=true]")) return;
  event.preventDefault();
  event.stopPropagation();
}, { capture: true });

/** Before something goes away: the keyboard goes on where it is said how she stands. */
function leaves(node) {
  if (node.contains(document.activeElement)) $("standing").focus();
}

function show(button, isShown) {
  if (!isShown) leaves(button);
  button.hidden = !isShown;
}

const isInside = () => sale.state === "open" && ["admitted", "holding"].includes(place.state);

function drawFacts() {
  put($("phase"), sale.state);
  $("phase").dataset.state = sale.state;
  put($("left"), sale.total.free ? count(sale.total.free) : stock(sale.total));
  put($("waiting"), count(sale.waiting));
  put($("active"), count(sale.active));
}

function drawPlace() {
  const { state, standing: line } = standing(place, sale, opensIn());
  $("place").dataset.state = state;
  put($("standing"), line);
  const mayJoin = ["none", "done"].includes(state);
  show($("join"), mayJoin);
  show($("leave"), ["waiting", "admitted"].includes(state));
  put($("leave"), state === "waiting" ? "Give up my place" : "Leave");
}

const opensIn = () => (sale.state === "scheduled" && sale.opens_at ? sale.opens_at - now() : null);

const seats = new Map(); // sku: its button

function drawSeats() {
  const mine = new Set(place.holds.flatMap(({ items }) => Object.keys(items)));
  const bought = new Set(place.orders.flatMap(({ items, refunded }) =>
    Object.keys(items).filter((sku) => !(refunded[sku] >= items[sku]))));
  for (const [sku, { free, held }] of Object.entries(sale.items)) {
    const seat = seatOf(sku);
    if (!seat) continue;
    const button = seats.get(sku) ?? seatButton(sku, seat);
    let state = free ? "free" : held ? "held" : "sold";
    if (mine.has(sku)) state = "mine";
    else if (bought.has(sku)) state = "bought";
    button.dataset.state = state;
    button.dataset.left = free;
    button.setAttribute("aria-label", `${nameOf(sku)}, ${SEAT_WORDS[state]}`);
  }
}

function seatButton(sku, [row, number]) {
  const button = element("button", String(number), { type: "button", "data-buys": "" });
  button.addEventListener("click", () => reserve({ items: { [sku]: 1 } }));
  seats.set(sku, button);
  let line = $("rows").querySelector(`[data-row="${row}"]`);
  if (!line) {
    line = element("div", "", { "data-row": row, role: "group", "aria-label": `Row ${row}` });
    line.append(element("b", row, { "aria-hidden": "true" }), element("span"));
    const after = [...$("rows").children].find((other) => other.dataset.row > row);
    $("rows").insertBefore(line, after ?? null);
  }
  const places = line.lastChild;
  const after = [...places.children].find((other) => Number(other.textContent) > number);
  places.insertBefore(button, after ?? null);
  return button;
}

const goods = new Map(); // sku: its line

function drawGoods() {
  for (const [sku, balance] of Object.entries(sale.items)) {
    if (seatOf(sku)) continue;
    const line = goods.get(sku) ?? goodsLine(sku);
    put(line.querySelector("small"), stock(balance));
    line.dataset.state = balance.free ? "free" : balance.held ? "held" : "sold";
    line.querySelector("button").dataset.left = balance.free;
    for (const part of ["sold", "held"]) {
      line.querySelector(`.${part}`).style.width = `${(100 * balance[part]) / Math.max(1, balance.stock)}%`;
    }
  }
}

function goodsLine(sku) {
  const line = element("li");
  const name = element("span", nameOf(sku));
  name.append(element("small"));
  const meter = element("span", "", { class: "meter", "aria-hidden": "true" });
  meter.append(element("i", "", { class: "sold" }), element("i", "", { class: "held" }));
  const button = element("button", "Hold one", {
    type: "button", "data-buys": "", "aria-label": `Hold one: ${nameOf(sku)}`,
  });
  button.addEventListener("click", () => reserve({ items: { [sku]: 1 } }));
  line.append(name, meter, button);
  goods.set(sku, line);
  $("goods").append(line);
  return line;
}

const holdLines = new Map(); // hold: its line

function drawHolds() {
  const present = new Set(place.holds.map(({ hold }) => hold));
  for (const [hold, line] of holdLines) {
    if (present.has(hold)) continue;
    leaves(line);
    line.remove();
    holdLines.delete(hold);
  }
  for (const { hold, items } of place.holds) {
    const line = holdLines.get(hold) ?? holdLine(hold);
    put(line.querySelector(".what"), basket(items));
  }
}

function holdLine(hold) {
  const line = element("li");
  const buttons = element("span", "", { class: "buttons" });
  const buy = element("button", "Buy", { type: "button", class: "buy" });
  const cancel = element("button", "Give back", { type: "button", class: "quiet" });
  buy.addEventListener("click", () => run(() => rt.sale.confirm(hold, { reference: `page-${hold}` })));
  cancel.addEventListener("click", () => {
    given.add(hold);
    run(() => rt.sale.cancel(hold));
  });
  buttons.append(buy, cancel);
  line.append(
    element("span", "", { class: "what" }),
    element("b", "", { role: "timer", "aria-label": "time left" }),
    buttons,
    element("span", "", { class: "runs", "aria-hidden": "true" }),
  );
  holdLines.set(hold, line);
  $("holds").append(line);
  return line;
}

function drawOrders() {
  $("orders").replaceChildren(...place.orders.map(({ order, items, state }) => {
    const line = element("li", basket(items));
    line.append(element("small", state === "sold" ? order : `${order}, ${state}`));
    return line;
  }));
}

// --- time ---

const fullMs = new Map(); // of a hold: what was left when it was first seen

/** What changes without being told: countdowns. */
function tick() {
  if (!sale || !place) return;
  put($("detail"), standing(place, sale, opensIn()).detail);
  const passMs = place.state === "admitted" && place.pass_expires_at ? place.pass_expires_at - now() : null;
  $("pass").hidden = passMs === null;
  if (passMs !== null) {
    put($("pass"), `Your pass lasts ${clock(passMs)}`);
    readOut(place.pass_id, passMs, "of your pass");
  }
  for (const { hold, items, expires_at } of place.holds) {
    const line = holdLines.get(hold);
    const leftMs = expires_at - now();
    if (!fullMs.has(hold)) fullMs.set(hold, leftMs);
    put(line.querySelector("b"), clock(leftMs));
    line.classList.toggle("ends", leftMs <= TOLD_MS.at(-1));
    line.querySelector(".runs").style.width = `${Math.max(0, Math.min(100, (100 * leftMs) / fullMs.get(hold)))}%`;
    readOut(hold, leftMs, `to buy ${basket(items)}`);
  }
}

setInterval(tick, TICK_MS);

/** Once for each of TOLD_MS, and not at all for those that were over when it began. */
function readOut(what, leftMs, of) {
  const due = TOLD_MS.filter((ms) => leftMs <= ms);
  const before = told.get(what) ?? due.length;
  told.set(what, due.length);
  if (due.length > before) put($("countdown"), `${roughly(due.at(-1))} left ${of}`);
}

// --- commands ---

function tell(text) {
  put($("news"), text);
}

async function run(command) {
  busy += 1;
  tell("");
  draw();
  try {
    return await command();
  } catch (error) {
    tell(refusal(error));
    return undefined;
  } finally {
    busy -= 1;
    draw();
  }
}

function reserve(wanted) {
  return run(() => rt.sale.reserve(SALE, { ...wanted, pass_id: place.pass_id }));
}

$("join").addEventListener("click", () => run(async () => {
  const before = place;
  const joined = await rt.sale.join(SALE);
  if (place === before) place = { ...place, ...joined }; // the watch says the same a little later
}));
$("leave").addEventListener("click", () => {
  given.add("place");
  run(() => rt.sale.leave(SALE));
});
$("best").addEventListener("submit", (event) => {
  event.preventDefault();
  reserve({ best: { zone: "hall", count: Number($("count").value) } });
});
