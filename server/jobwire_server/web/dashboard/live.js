// How news arrive: the one place that knows. The server tells by events that something is new, and a page reads again
// what it shows. Events are a doorbell: who hears none for a while looks all the same.

import { useCallback, useEffect, useRef, useState } from "./vendor/htm-preact.js";

const RHYTHM = 2000; // milliseconds between two readings of the stats
const RECHECK = 5000; // milliseconds without an event
const LINGER = 1000; // milliseconds that a source nobody listens to stays open: the next page may want it

const source = (stream, request) => `events/${stream}?request=${encodeURIComponent(JSON.stringify(request))}`;
export const STATS = source("stats", { interval: `${RHYTHM / 1000}s` });
export const ofJob = (id) => source("jobs", { job_ids: [id] });

// One connection for all who listen to the same. None while nobody looks: a browser has six for all its tabs together.
const sources = new Map();

class Source {
  constructor(url) {
    this.url = url;
    this.listeners = new Set();
    this.events = null;
    this.latest = null;
    this.timer = 0;
  }

  static listen(url, listener) {
    if (!sources.has(url)) sources.set(url, new Source(url));
    const found = sources.get(url);
    found.listeners.add(listener);
    found.heed();
    return () => {
      found.listeners.delete(listener);
      setTimeout(() => found.heed(), LINGER);
    };
  }

  // Opens or closes it, as it is wanted or not.
  heed() {
    const isWanted = this.listeners.size > 0 && !document.hidden;
    if (isWanted === (this.events !== null)) return;
    clearTimeout(this.timer);
    this.events?.close();
    this.events = null;
    this.latest = null;
    if (!this.listeners.size) sources.delete(this.url);
    if (!isWanted) return;
    const events = new EventSource(this.url);
    this.events = events;
    events.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (!message.stats && !message.changed && !message.removed) return; // a marker, or nothing new
      this.latest = message;
      for (const listener of this.listeners) listener(message);
    });
    events.addEventListener("error", () => {
      for (const listener of this.listeners) listener(null);
      if (events.readyState !== EventSource.CLOSED) return; // it connects again by itself
      this.timer = setTimeout(() => {
        this.events = null;
        this.heed();
      }, RHYTHM);
    });
  }
}

document.addEventListener("visibilitychange", () => {
  for (const each of [...sources.values()]) each.heed();
});

// Whether the server answers, for the banner: {since} while it does not, null while it does.
let away = null;
const told = new Set();

function tell(isAway) {
  if (isAway === (away !== null)) return;
  away = isAway ? { since: Date.now() } : null;
  for (const each of told) each(away);
}

export function useAway() {
  const [state, setState] = useState(away);
  useEffect(() => {
    told.add(setState);
    return () => told.delete(setState);
  }, []);
  return state;
}

// What `read(message)` answers, anew whenever `url` tells something and the page is looked at. `key` says what is read:
// another one begins afresh. {value, error, refresh}; while the server is away the value is the last one known.
export function useLive(key, read, url = STATS) {
  const [seen, setSeen] = useState({ key, value: undefined, error: null });
  const reading = useRef(null);
  reading.current = read;
  const again = useRef(null);
  useEffect(() => {
    let isOver = false;
    let timer = 0;
    let asked = 0; // of several readings under way only the latest counts
    let message = sources.get(url)?.latest ?? null;
    const look = async () => {
      clearTimeout(timer);
      asked += 1;
      const mine = asked;
      let next;
      try {
        next = { value: await reading.current(message), error: null };
        tell(false);
      } catch (error) {
        tell(Boolean(error.isAway));
        next = error.isAway ? {} : { error }; // the banner says so
      }
      if (isOver || mine !== asked) return;
      setSeen((before) => ({ value: before.key === key ? before.value : undefined, error: null, ...next, key }));
      timer = setTimeout(recheck, RECHECK);
    };
    const recheck = () => document.hidden || look();
    again.current = look;
    const leave = Source.listen(url, (news) => {
      message = news ?? message;
      recheck();
    });
    document.addEventListener("visibilitychange", recheck);
    look();
    return () => {
      isOver = true;
      clearTimeout(timer);
      leave();
      document.removeEventListener("visibilitychange", recheck);
    };
  }, [key, url]);
  const refresh = useCallback(() => again.current(), []);
  const isMine = seen.key === key;
  return { value: isMine ? seen.value : undefined, error: isMine ? seen.error : null, refresh };
}
