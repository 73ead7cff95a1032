// SPDX-License-Identifier: Apache-2.0
// JSON whose integers are exact. BigInts are written as numbers, which JSON.stringify refuses to do; everything that may
// pass 64 bits is a string already when it comes here.

export function stringify(value, indent = "") {
  if (typeof value === "bigint") return value.toString();
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const deeper = indent + " ";
  const isArray = Array.isArray(value);
  const parts = isArray
    ? value.map((item) => stringify(item, deeper))
    : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${stringify(item, deeper)}`);
  const [open, close] = isArray ? "[]" : "{}";
  const line = open + parts.join(", ") + close;
  if (line.length + indent.length <= 120 && !line.includes("\n")) return line;
  return `${open}\n${parts.map((part) => deeper + part).join(",\n")}\n${indent}${close}`;
}
