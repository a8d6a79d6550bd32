/** The keys: one table for what they do and for the page that explains them. */

import { askToSign, claim, next, release } from "./deciding";
import type { Box } from "./records";
import { apply, presets } from "./presets";
import {
  clearVerdict,
  correct,
  draw,
  judge,
  keepBox,
  selectNeighbour,
} from "./session";
import {
  boxesShown,
  editing,
  helpOpen,
  selected,
  shortcuts,
  signOpen,
  slice,
  tool,
  view,
  viewer,
} from "./state";
import type { Tool } from "./viewer";

export interface Key {
  /** As `KeyboardEvent.key` has it, letters small; several do the same. */
  keys: readonly string[];
  shift?: boolean;
  shown: string;
  does: string;
  group: "Queue" | "Slices" | "Findings" | "Image" | "Decision";
  act: (event: KeyboardEvent) => void;
}

const PAGE = 10;
const PAN = 40;
const NUDGE = 0.05;

function scroll(by: number): void {
  const made = viewer.value;
  made?.goTo(made.index + by);
}

function use(one: Tool): void {
  tool.value = one;
  viewer.value?.useTool(one);
}

function focusOn(selector: string): void {
  document.querySelector<HTMLElement>(selector)?.focus();
}

function toQueue(): void {
  const current = document.querySelector<HTMLElement>('.card[aria-current="true"]');
  (current ?? document.querySelector<HTMLElement>("button.card"))?.focus();
}

export const KEYS: readonly Key[] = [
  { keys: ["q"], shown: "Q", does: "to the queue; ↑ ↓ and Enter there", group: "Queue", act: toQueue },
  { keys: ["x"], shown: "X", does: "next study", group: "Queue", act: () => void next() },
  { keys: ["v"], shown: "V", does: "to the image", group: "Queue", act: () => focusOn("#viewport") },
  { keys: ["arrowdown", "arrowright"], shown: "↓ →", does: "next slice", group: "Slices", act: () => scroll(1) },
  { keys: ["arrowup", "arrowleft"], shown: "↑ ←", does: "slice before", group: "Slices", act: () => scroll(-1) },
  { keys: ["pagedown"], shown: "Page ↓", does: `${PAGE} slices on`, group: "Slices", act: () => scroll(PAGE) },
  { keys: ["pageup"], shown: "Page ↑", does: `${PAGE} slices back`, group: "Slices", act: () => scroll(-PAGE) },
  { keys: ["home"], shown: "Home", does: "first slice", group: "Slices", act: () => viewer.value?.goTo(0) },
  { keys: ["end"], shown: "End", does: "last slice", group: "Slices", act: () => viewer.value?.goTo(Number.MAX_SAFE_INTEGER) },
  { keys: ["n"], shown: "N", does: "next finding", group: "Findings", act: () => selectNeighbour(1) },
  { keys: ["p"], shown: "P", does: "finding before", group: "Findings", act: () => selectNeighbour(-1) },
  { keys: ["a"], shown: "A", does: "accept it", group: "Findings", act: () => judge("confirmed") },
  { keys: ["r"], shown: "R", does: "reject it", group: "Findings", act: () => judge("rejected") },
  { keys: ["c"], shown: "C", does: "change its label or boxes", group: "Findings", act: () => judge("changed") },
  { keys: ["u"], shown: "U", does: "take the verdict back", group: "Findings", act: clearVerdict },
  { keys: ["d"], shown: "D", does: "draw a missed finding", group: "Findings", act: () => draw(null) },
  { keys: ["e"], shown: "E", does: "its box on this slice", group: "Findings", act: () => editSelected() },
  { keys: ["b"], shown: "B", does: "show or hide boxes", group: "Findings", act: () => (boxesShown.value = !boxesShown.value) },
  { keys: ["1", "2", "3", "4", "5", "0", "9"], shown: "1–5, 0, 9", does: "window presets, as opened, full range", group: "Image", act: preset },
  { keys: ["["], shown: "[", does: "narrower window", group: "Image", act: () => viewer.value?.adjustWindow(0, -2 * NUDGE) },
  { keys: ["]"], shown: "]", does: "wider window", group: "Image", act: () => viewer.value?.adjustWindow(0, 2 * NUDGE) },
  { keys: [","], shown: ",", does: "brighter", group: "Image", act: () => viewer.value?.adjustWindow(-NUDGE, 0) },
  { keys: ["."], shown: ".", does: "darker", group: "Image", act: () => viewer.value?.adjustWindow(NUDGE, 0) },
  { keys: ["+", "="], shown: "+", does: "zoom in", group: "Image", act: () => viewer.value?.zoom(1) },
  { keys: ["-"], shown: "−", does: "zoom out", group: "Image", act: () => viewer.value?.zoom(-1) },
  { keys: ["arrowup", "arrowdown", "arrowleft", "arrowright"], shift: true, shown: "Shift ↑↓←→", does: "pan", group: "Image", act: pan },
  { keys: ["f"], shown: "F", does: "fit to window", group: "Image", act: () => viewer.value?.fit() },
  { keys: ["i"], shown: "I", does: "invert", group: "Image", act: () => viewer.value?.invert() },
  { keys: ["w"], shown: "W", does: "dragging windows", group: "Image", act: () => use("window") },
  { keys: ["h"], shown: "H", does: "dragging pans", group: "Image", act: () => use("pan") },
  { keys: ["z"], shown: "Z", does: "dragging zooms", group: "Image", act: () => use("zoom") },
  { keys: ["t"], shown: "T", does: "claim the study", group: "Decision", act: () => void claim() },
  { keys: ["l"], shown: "L", does: "release it", group: "Decision", act: () => void release() },
  { keys: ["m"], shown: "M", does: "write a comment; Esc leaves it", group: "Decision", act: () => focusOn("#comment") },
  { keys: ["s"], shown: "S", does: "sign off", group: "Decision", act: askToSign },
  { keys: ["k"], shown: "K", does: "correct a signed decision", group: "Decision", act: toCorrection },
  { keys: ["escape"], shown: "Esc", does: "leave what is under way", group: "Decision", act: () => escape() },
  { keys: ["?"], shown: "?", does: "these keys", group: "Decision", act: () => (helpOpen.value = true) },
];

function preset(event: KeyboardEvent): void {
  const chosen = presets().find((one) => one.key === event.key);
  if (chosen) apply(chosen);
}

function toCorrection(): void {
  correct();
  // The field is there once the page is drawn anew.
  requestAnimationFrame(() => focusOn("#reason"));
}

function editSelected(): void {
  if (selected.value) draw(selected.value);
}

const ARROWS: Record<string, readonly [number, number]> = {
  arrowup: [0, -1],
  arrowdown: [0, 1],
  arrowleft: [-1, 0],
  arrowright: [1, 0],
};

function pan(event: KeyboardEvent): void {
  const [x, y] = ARROWS[event.key.toLowerCase()] ?? [0, 0];
  viewer.value?.pan(x * PAN, y * PAN);
}

function escape(): void {
  if (editing.value) editing.value = null;
  else if (document.activeElement !== document.getElementById("viewport")) focusOn("#viewport");
  else if (selected.value) selected.value = null;
}

/** Where keys belong to the element itself. */
const OWN = "input, textarea, select, dialog";

export function listen(): void {
  document.addEventListener("keydown", pressed);
  document.addEventListener("pointerdown", () => (writing = null));
}

/** The field in which a character was typed last, and when. */
let writing: { field: Element; at: number } | null = null;
const PAUSE_MS = 1500;

/**
 * Whether a letter was meant for a field that is gone: a newer review takes the comment away while
 * somebody writes it, and what they go on typing must not claim or judge anything.
 */
function meantForField(event: KeyboardEvent): boolean {
  if (!writing || writing.field.isConnected || event.key.length !== 1) return false;
  if (event.timeStamp - writing.at > PAUSE_MS) return false;
  writing.at = event.timeStamp;
  return true;
}

function pressed(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const key = event.key.toLowerCase();
  if (helpOpen.value || signOpen.value) return;
  if (event.target instanceof Element && event.target.closest(OWN)) {
    // Enter and Escape end the writing: what closes the field then is the reader's own doing.
    writing = event.key.length === 1 ? { field: event.target, at: event.timeStamp } : null;
    if (key === "escape") focusOn("#viewport");
    return;
  }
  if (meantForField(event)) {
    event.preventDefault();
    return;
  }
  if (editing.value && moveBox(event, key)) {
    event.preventDefault();
    return;
  }
  const letter = key.length === 1 && key !== "?";
  if (letter && !shortcuts.value) return;
  // Shift is part of some characters, such as ?; only of arrows does it make other keys.
  const shift = event.shiftKey && key in ARROWS;
  const found = KEYS.find((one) => one.keys.includes(key) && (one.shift ?? false) === shift);
  if (!found) return;
  event.preventDefault();
  found.act(event);
}

/** While a box is drawn, arrows move it and, with Shift, its lower right corner. */
function moveBox(event: KeyboardEvent, key: string): boolean {
  const edit = editing.value;
  const here = slice.value;
  if (!edit || !here) return false;
  if (key === "enter") {
    if (edit.box) keepBox();
    else editing.value = { ...edit, box: startingBox() };
    return true;
  }
  const arrow = ARROWS[key];
  if (!arrow) return false;
  const step = Math.max(1, Math.round(Math.max(here.columns, here.rows) / 128));
  const [x, y] = [arrow[0] * step, arrow[1] * step];
  const [x1, y1, x2, y2] = edit.box ?? startingBox();
  const moved: Box = event.shiftKey
    ? [x1, y1, Math.min(here.columns, Math.max(x1 + 2, x2 + x)), Math.min(here.rows, Math.max(y1 + 2, y2 + y))]
    : shifted([x1, y1, x2, y2], x, y, here.columns, here.rows);
  editing.value = { ...edit, box: moved };
  return true;
}

function shifted([x1, y1, x2, y2]: Box, x: number, y: number, columns: number, rows: number): Box {
  const dx = Math.max(-x1, Math.min(columns - x2, x));
  const dy = Math.max(-y1, Math.min(rows - y2, y));
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}

/** A tenth of the frame, in the middle of what is seen of it. */
function startingBox(): Box {
  const here = slice.value;
  const now = view.value;
  const element = document.getElementById("viewport");
  if (!here || !now || !element) return [0, 0, 2, 2];
  const { clientWidth, clientHeight } = element;
  const [u, v] = viewer.value?.at(now.placement, clientWidth / 2, clientHeight / 2) ?? [0, 0];
  const half = Math.max(here.columns, here.rows) / 20;
  return shifted([u - half, v - half, u + half, v + half], 0, 0, here.columns, here.rows);
}

