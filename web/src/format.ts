/** Figures as people read them. */

import type { Item } from "./records";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A length of time, two units at most: 45 s, 12 min, 3 h 5 min, 2 d 4 h. */
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < MINUTE) return `${s} s`;
  if (s < HOUR) return `${Math.floor(s / MINUTE)} min`;
  if (s < DAY) return pair(Math.floor(s / HOUR), "h", Math.floor((s % HOUR) / MINUTE), "min");
  return pair(Math.floor(s / DAY), "d", Math.floor((s % DAY) / HOUR), "h");
}

function pair(large: number, unit: string, small: number, other: string): string {
  return small ? `${large} ${unit} ${small} ${other}` : `${large} ${unit}`;
}

export function since(iso: string, now: number): number {
  return Math.max(0, (now - Date.parse(iso)) / 1000);
}

/** 14:05, or 3 Mar 14:05 on another day. */
export function moment(iso: string): string {
  const at = new Date(iso);
  const time = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** Labels are identifiers: soft_tissue_mass reads as soft tissue mass. */
export function label(text: string): string {
  return text.replaceAll("_", " ");
}

/** A line of its own: with a capital, labels in it as `label` has them. */
export function sentence(text: string): string {
  const plain = label(text);
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

/** A signed figure with a true minus. */
export function signed(value: number, digits = 0): string {
  return value.toFixed(digits).replace("-", "−");
}

export function size(extent: readonly number[] | null | undefined): string {
  return extent ? `${extent.map((one) => Math.round(one)).join(" × ")} mm` : "size unknown";
}

/** Who holds an item, or decided it. */
export function holder(item: Item | null): string {
  return item?.holder_name || item?.holder || "somebody";
}
