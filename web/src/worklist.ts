/** Keeps the queue up to date, and notices what happens to the study that is open. */

import * as api from "./api";
import type { Item } from "./records";
import {
  answered,
  clock,
  connected,
  detail,
  items,
  me,
  openId,
  shut,
  skew,
  stateShown,
  total,
} from "./state";

const EVERY_MS = 3000;
const STATES = { waiting: "open,claimed", decided: "decided" } as const;

let etag: string | null = null;
let etagOf = "";
let timer: ReturnType<typeof setTimeout> | undefined;

/** Learn who reads, and follow the worklist from then on. */
export function follow(): void {
  setInterval(() => {
    clock.value = Date.now();
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) void refresh();
  });
  stateShown.subscribe(() => {
    items.value = null;
    void refresh();
  });
}

/** Ask now, and again in a while. */
export async function refresh(): Promise<void> {
  clearTimeout(timer);
  try {
    me.value ??= await api.me();
    await ask();
    connected.value = true;
    answered.value = Date.now();
    shut.value = null;
  } catch (error) {
    if (error instanceof api.Refusal && [401, 403].includes(error.status)) shut.value = error;
    else if (error instanceof api.Refusal && me.value === null) shut.value = error;
    else connected.value = false;
  } finally {
    clearTimeout(timer);
    timer = setTimeout(() => void refresh(), EVERY_MS);
  }
}

async function ask(): Promise<void> {
  const state = STATES[stateShown.value];
  const listing = await api.worklist(state, etagOf === state ? etag : null);
  if (listing === null || state !== STATES[stateShown.value]) return;
  etag = listing.etag;
  etagOf = state;
  items.value = listing.items;
  total.value = listing.total;
  const now = Date.parse(listing.now);
  if (Number.isFinite(now)) skew.value = now - Date.now();
  await compareOpen(listing.items);
}

/** Bring the open item up to date; one that left the list is asked for by name. */
async function compareOpen(listed: readonly Item[]): Promise<void> {
  const open = detail.value;
  if (!open || openId.value !== open.item.id) return;
  if (["decided", "superseded"].includes(open.item.state)) return;
  const there = listed.find((one) => one.id === open.item.id);
  if (there) {
    if (JSON.stringify(there) !== JSON.stringify(open.item)) {
      detail.value = { ...open, item: there };
    }
    return;
  }
  const found = await api.item(open.item.id);
  if (openId.value === found.item.id) detail.value = found;
}

/** Put an item, as a door answered it, where it is shown. */
export function put(changed: Item): void {
  const open = detail.value;
  if (open?.item.id === changed.id) detail.value = { ...open, item: changed };
  items.value = items.value?.map((one) => (one.id === changed.id ? changed : one)) ?? null;
}
