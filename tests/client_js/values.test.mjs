import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { decode, encode, fromWire, RtError } from "../../client/js/values.js";

const file = new URL("../conformance/vectors.json", import.meta.url);
const vectors = JSON.parse(readFileSync(file, "utf8"));

// JSON.stringify says 0 for -0.
const plain = (value) => JSON.parse(JSON.stringify(value));

for (const { name, value } of vectors.exact) {
  test(`vector: ${name}`, () => {
    assert.deepEqual(plain(encode(decode(structuredClone(value)))), plain(value));
  });
}

test("what JSON lacks", () => {
  const value = {
    bytes: new Uint8Array([0, 255, 7]),
    large: 2n ** 63n - 1n,
    small: -(2n ** 63n),
    map: { $b64: "not bytes" },
    deep: { $map: { $i64: [1] } },
    list: [{ $map: 1 }, new Uint8Array(0)],
  };
  const text = JSON.stringify(encode(value));
  assert.deepEqual(decode(JSON.parse(text)), value);
  assert.ok(text.includes('{"$b64":"AP8H"}'));
  assert.ok(text.includes('{"$map":{"$b64":"not bytes"}}'));
});

test("a bigint that a number can say is one", () => {
  assert.equal(JSON.stringify(encode([1n, 2n ** 53n, 2n ** 53n + 1n])),
    '[1,9007199254740992,{"$i64":"9007199254740993"}]');
});

test("large bytes", () => {
  const bytes = Uint8Array.from({ length: 200_000 }, (_, place) => place % 251);
  assert.deepEqual(decode(encode(bytes)), bytes);
});

test("undefined is left out, as JSON.stringify does", () => {
  assert.deepEqual(encode({ a: undefined, b: null, $i64: undefined, $map: 1 }), { b: null, $map: 1 });
  assert.equal(JSON.stringify(encode(new Date(0))), '"1970-01-01T00:00:00.000Z"');
});

test("numbers that JSON has not are refused", () => {
  for (const value of [NaN, Infinity, -Infinity]) {
    assert.throws(() => encode({ a: [value] }), /cannot be sent/);
  }
});

test("a key named __proto__ is data", () => {
  const value = decode(JSON.parse('{"__proto__": {"$i64": "5"}, "a": 1}'));
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.equal(JSON.stringify(encode(value)), '{"__proto__":5,"a":1}');
});

test("errors say whether to try again", () => {
  const error = fromWire([303, "rate_limited", "slow down", { retry_after_ms: 5 }]);
  assert.ok(error instanceof RtError && error instanceof Error);
  assert.deepEqual([error.code, error.name, error.message], [303, "rate_limited", "slow down"]);
  assert.equal(error.retryable, true);
  assert.equal(error.details.retry_after_ms, 5);
  assert.equal(fromWire([103, "invalid_params", "no", null]).retryable, false);
  assert.equal(fromWire([107, "deadline_exceeded", "no", null]).retryable, true);
});
