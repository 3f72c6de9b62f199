/** What the example shop says: client/examples/flash_sale/pages/words.js. */

import assert from "node:assert/strict";
import test from "node:test";

import { RtError } from "../../client/js/rtserver.js";
import {
  basket, clock, nameOf, refusal, roughly, seatOf, standing, stock,
} from "../../client/examples/flash_sale/pages/words.js";

const sale = (more = {}) => ({ state: "open", total: { free: 5, held: 1, sold: 0 }, ...more });
const place = (state, more = {}) => ({ state, position: null, eta_ms: null, ...more });

test("times", () => {
  assert.deepEqual([-5, 0, 1, 999, 1_001, 59_001, 90_000].map(clock),
    ["0:00", "0:00", "0:01", "0:01", "0:02", "1:00", "1:30"]);
  assert.deepEqual([0, 1_400, 42_000, 89_000, 90_000, 7_200_000].map(roughly),
    ["1 second", "1 second", "42 seconds", "89 seconds", "2 minutes", "120 minutes"]);
});

test("things", () => {
  assert.deepEqual(seatOf("B10"), ["B", 10]);
  assert.equal(seatOf("poster"), null);
  assert.equal(nameOf("A1"), "Row A, seat 1");
  assert.equal(nameOf("<i>"), "<i>");
  assert.equal(basket({ C10: 1, C9: 1, poster: 2 }), "Row C, seats 9, 10; 2 × Poster, signed");
  assert.equal(basket({ A1: 1, vinyl: 1 }), "Row A, seat 1; Live album on vinyl");
  assert.equal(stock({ free: 1_200, held: 1 }), "1,200 left");
  assert.equal(stock({ free: 0, held: 1 }), "all on hold");
  assert.equal(stock({ free: 0, held: 0 }), "sold out");
});

test("a visitor is told where she stands, and what she waits for", () => {
  const said = (...args) => {
    const { state, standing: line, detail } = standing(...args);
    return [state, line, detail];
  };
  const waiting = place("waiting", { position: 1_234, eta_ms: 42_000 });
  assert.deepEqual(said(waiting, sale(), null),
    ["waiting", "You are number 1,234 in line.", "About 42 seconds to go."]);
  assert.match(said(place("waiting", { position: 2 }), sale(), null)[2], /as others leave/);
  assert.equal(said(waiting, sale({ state: "scheduled" }), 9_000)[2], "The sale opens in 0:09.");
  assert.match(said(waiting, sale({ state: "paused" }), null)[2], /paused/);
  assert.match(said(waiting, sale({ total: { free: 0, held: 1, sold: 5 } }), null)[2], /comes back/);
  assert.match(said(place("none"), sale({ state: "scheduled" }), 9_000)[2], /opens in 0:09.*lots/);
  assert.equal(said(place("none"), sale({ state: "closed" }), null)[1], "The sale is closed.");
  assert.equal(said(place("none"), sale({ state: "none" }), null)[1], "There is no sale here.");
  assert.match(said(place("none"), sale({ total: { free: 0, held: 2, sold: 4 } }), null)[2], /on hold/);
  for (const state of ["none", "done", "sold_out"]) {
    const end = said(place(state), sale({ total: { free: 0, held: 0, sold: 6 } }), null);
    assert.deepEqual(end.slice(0, 2), ["sold_out", "Sold out."]);
  }
  for (const state of ["admitted", "holding"]) assert.equal(said(place(state), sale(), null)[1], "You are in.");
  assert.equal(said(place("done"), sale(), null)[1], "Thank you.");
});

test("refusals are said in a visitor's words, and those we do not know in the server's", () => {
  const said = (name, details) => refusal(new RtError(205, name, "as the server says", details));
  assert.match(said("sold_out", { final: true }), /is sold out/);
  assert.match(said("sold_out", { final: false }), /may come back/);
  assert.match(said("not_open", { state: "scheduled" }), /not open yet/);
  assert.match(said("not_open", { state: "paused" }), /is paused/);
  for (const name of ["no_pass", "limit_reached", "rate_limited", "expired", "already_confirmed", "already_cancelled"]) {
    assert.notEqual(said(name), "as the server says", name);
  }
  assert.equal(said("forbidden"), "as the server says");
});
