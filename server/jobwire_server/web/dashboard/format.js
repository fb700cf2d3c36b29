// How numbers, times and names read. Times are the store's: `setServerTime` says how far this machine's clock is off.

const numbers = new Intl.NumberFormat("en-US");
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

let offset = 0;

export function setServerTime(time) {
  if (time) offset = Date.parse(time) - Date.now();
}

export const now = () => Date.now() + offset;

// Of a 64-bit number, which is a text in JSON, and absent when it is 0.
export const number = (value) => Number(value ?? 0);
export const count = (value) => numbers.format(number(value));
export const rate = (value) => (value >= 10 || value === 0 ? numbers.format(Math.round(value)) : value.toFixed(1));
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${number(value) === 1 ? one : many}`;

// "1.5s" → 1.5; absent → undefined.
export const seconds = (duration) => (duration === undefined ? undefined : Number.parseFloat(duration));

export function span(value) {
  if (value === undefined || Number.isNaN(value)) return "–";
  const whole = Math.max(value, 0);
  if (whole < 0.001) return `${Math.round(whole * 1e6)} µs`;
  if (whole < 1) return `${Math.round(whole * 1000)} ms`;
  if (whole < 10) return `${whole.toFixed(1)} s`;
  if (whole < 60) return `${Math.floor(whole)} s`;
  for (const [unit, size, part, partSize] of [
    ["d", 86_400, "h", 3_600],
    ["h", 3_600, "min", 60],
    ["min", 60, "s", 1],
  ]) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / partSize);
    const units = `${count(Math.floor(whole / size))} ${unit}`;
    return rest && whole < size * 10 ? `${units} ${rest} ${part}` : units;
  }
  return "–";
}

export const secondsSince = (time) => (now() - Date.parse(time)) / 1000;

export function relative(time) {
  if (!time) return "–";
  const ago = secondsSince(time);
  if (Math.abs(ago) < 1) return "just now";
  return ago > 0 ? `${span(ago)} ago` : `in ${span(-ago)}`;
}

export const moment = (time) => (time ? moments.format(new Date(time)) : "");

export function bytes(value) {
  let size = number(value);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024) return `${unit === "B" || size >= 100 ? Math.round(size) : size.toFixed(1)} ${unit}`;
    size /= 1024;
  }
  return `${size.toFixed(1)} TiB`;
}

// JOB_STATE_IN_PROGRESS → IN_PROGRESS: names of enums carry that of their type.
export const short = (value, prefix) => (value ?? "").replace(`${prefix}_`, "");
export const words = (value) => value.charAt(0) + value.slice(1).toLowerCase().replaceAll("_", " ");

const ENGINES = { sqlite: "SQLite", redis: "Redis", valkey: "Valkey" };
export const engine = (store) => [ENGINES[store.engine] ?? store.engine, store.engine_version].filter(Boolean).join(" ");

export const STATES = ["QUEUED", "IN_PROGRESS", "SCHEDULED", "FAILED", "COMPLETED", "CANCELED", "EXPIRED"];
export const ENDED = new Set(["COMPLETED", "FAILED", "CANCELED", "EXPIRED"]);
export const stateOf = (job) => short(job.state, "JOB_STATE");

// [{state, count}] → {QUEUED: 3, …}, every state named.
export function byState(counts = []) {
  const found = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const each of counts) found[short(each.state, "JOB_STATE")] = number(each.count);
  return found;
}
