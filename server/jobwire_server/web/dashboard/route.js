// Where we are: `#/queues/mail?state=FAILED` → {path: ["queues", "mail"], query: {state: "FAILED"}}.

import { useEffect, useState } from "./vendor/htm-preact.js";

export function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return {
    path: path.split("/").filter(Boolean).map(decoded),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

export function useRoute() {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

export function link(path, query = {}) {
  const set = Object.entries(query).filter(([, value]) => value);
  const tail = set.length ? `?${new URLSearchParams(set)}` : "";
  return `#/${path.map(encodeURIComponent).join("/")}${tail}`;
}

export const go = (path, query) => {
  location.hash = link(path, query);
};

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand, with a lone %
  }
}
