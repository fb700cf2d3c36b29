// How news arrive: the one place that knows. A page says what it reads; it is read again whenever there may be news.

import { useCallback, useEffect, useRef, useState } from "./vendor/htm-preact.js";

const RHYTHM = 2000; // milliseconds between two looks

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

// What `read` answers, read anew while the page is looked at. `key` says what is read: another key begins afresh.
// {value, error, refresh}; while the server is away the value is the last one known.
export function useLive(key, read) {
  const [seen, setSeen] = useState({ key, value: undefined, error: null });
  const reading = useRef(null);
  reading.current = read;
  const again = useRef(() => {});
  useEffect(() => {
    let isOver = false;
    let timer = 0;
    let asked = 0;
    const look = async () => {
      clearTimeout(timer);
      asked += 1;
      const mine = asked;
      if (!document.hidden) {
        let next;
        try {
          next = { value: await reading.current(), error: null };
          tell(false);
        } catch (error) {
          next = { error };
          tell(Boolean(error.isAway));
          if (error.isAway) next = {}; // the banner says so; what is known stays
        }
        if (isOver || mine !== asked) return;
        setSeen((before) => ({ key, value: before.key === key ? before.value : undefined, error: null, ...next }));
      }
      timer = setTimeout(look, RHYTHM);
    };
    again.current = look;
    const returned = () => document.hidden || look();
    document.addEventListener("visibilitychange", returned);
    look();
    return () => {
      isOver = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", returned);
    };
  }, [key]);
  const refresh = useCallback(() => again.current(), []);
  const isMine = seen.key === key;
  return { value: isMine ? seen.value : undefined, error: isMine ? seen.error : null, refresh };
}
