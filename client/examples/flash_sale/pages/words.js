/** What the page says: times, places, refusals and names, as text. */

const numbers = new Intl.NumberFormat("en");
const NAMES = { poster: "Poster, signed", vinyl: "Live album on vinyl" };
const SEAT = /^([A-Z])(\d+)$/;

/** [row, number] of a numbered seat; null for other things. */
export function seatOf(sku) {
  const [, row, number] = SEAT.exec(sku) ?? [];
  return row ? [row, Number(number)] : null;
}

export function nameOf(sku) {
  const seat = seatOf(sku);
  return seat ? `Row ${seat[0]}, seat ${seat[1]}` : (NAMES[sku] ?? sku);
}

/** `Row B, seats 4, 5` or `2 × Poster, signed`, one after the other. */
export function basket(items) {
  const rows = new Map();
  const others = [];
  for (const [sku, count] of Object.entries(items)) {
    const seat = seatOf(sku);
    if (seat) rows.set(seat[0], [...(rows.get(seat[0]) ?? []), seat[1]]);
    else others.push(count > 1 ? `${count} × ${nameOf(sku)}` : nameOf(sku));
  }
  const seats = [...rows].map(([row, places]) => {
    const sorted = places.sort((one, other) => one - other).join(", ");
    return `Row ${row}, ${places.length > 1 ? "seats" : "seat"} ${sorted}`;
  });
  return [...seats, ...others].join("; ");
}

/** 0:09, 1:30: what is left, the begun second counted. */
export function clock(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** As long as it takes to say: 40 seconds, 3 minutes. */
export function roughly(ms) {
  const seconds = Math.max(1, Math.round(ms / 1000));
  if (seconds < 90) return seconds === 1 ? "1 second" : `${seconds} seconds`;
  return `${numbers.format(Math.round(seconds / 60))} minutes`;
}

export const count = (number) => numbers.format(number);

/** Whether anything is left, in two words. */
export function stock({ free, held }) {
  if (free) return `${count(free)} left`;
  return held ? "all on hold" : "sold out";
}

/**
 * {state, standing, detail} of a visitor: a word for styles, one sentence that is read out when it
 * changes, and what may change every second. opensIn: ms until the sale opens.
 */
export function standing(place, sale, opensIn) {
  const { state } = place;
  if (state === "waiting") return waiting(place, sale, opensIn);
  if (state === "admitted") return { state, standing: "You are in.", detail: "Choose while your pass lasts." };
  if (state === "holding") {
    return { state, standing: "You are in.", detail: "What you hold is yours until its time runs out." };
  }
  if (sale.state === "none") return { state: "closed", standing: "There is no sale here.", detail: "" };
  if (sale.state === "closed") return { state: "closed", standing: "The sale is closed.", detail: "" };
  if (isSoldOut(sale)) {
    return { state: "sold_out", standing: "Sold out.", detail: "Everything is sold; nothing will come back." };
  }
  if (state === "done") {
    return { state, standing: "Thank you.", detail: "Your visit is over. For more, join the queue again." };
  }
  if (sale.state === "scheduled") {
    const when = opensIn === null ? "" : `The sale opens in ${clock(opensIn)}. `;
    return { state, standing: "Soon.", detail: `${when}Join now: lots decide the order of all who came before.` };
  }
  const detail = sale.total.free
    ? "A few are let in at a time; your place is kept if you lose the connection."
    : "Everything is on hold right now. What is not bought comes back to those in line.";
  return { state, standing: "Welcome.", detail };
}

const isSoldOut = ({ total }) => total.free === 0 && total.held === 0;

function waiting({ position, eta_ms }, sale, opensIn) {
  const place = position ? `You are number ${count(position)} in line.` : "You are in line.";
  let detail = eta_ms == null ? "You will be let in as others leave." : `About ${roughly(eta_ms)} to go.`;
  if (sale.state === "scheduled" && opensIn !== null) detail = `The sale opens in ${clock(opensIn)}.`;
  else if (sale.state === "paused") detail = "The sale is paused; your place is kept.";
  else if (sale.total.free === 0) detail = "Everything is on hold right now; what comes back goes to the next in line.";
  return { state: "waiting", standing: place, detail };
}

/** Why something was refused, for a visitor. */
export function refusal(error) {
  const details = error.details ?? {};
  switch (error.name) {
    case "sold_out":
      return details.final ? "That is sold out." : "That is on hold for somebody; it may come back.";
    case "no_pass":
      return "Your pass has run out: join the queue again.";
    case "not_open":
      return details.state === "scheduled" ? "The sale is not open yet." : `The sale is ${details.state}.`;
    case "limit_reached":
      return "That is more than one visitor may have.";
    case "rate_limited":
      return "That was too fast; try again in a moment.";
    case "expired":
      return "Too late: the hold has run out.";
    case "already_confirmed":
      return "That is bought already.";
    case "already_cancelled":
      return "That was given back before.";
    default:
      return error.message;
  }
}
