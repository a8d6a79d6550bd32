/** What the page knows. Views read the signals; `session.ts` and `worklist.ts` change them. */

import { computed, signal } from "@preact/signals";

import type { Refusal } from "./api";
import { boxesOf, type Draft, draftOf, EMPTY, required } from "./draft";
import type { Box, Finding, Item, ItemDetail, Lane, Me, Verdict } from "./records";
import type { Patient, Series, Slice } from "./stack";
import type { Tool, View, Viewer } from "./viewer";

// --- the reader and the queue

export const me = signal<Me | null>(null);
/** Why the page as a whole cannot be used. */
export const shut = signal<Refusal | null>(null);
export const items = signal<Item[] | null>(null);
/** Items of the queue, also those that were not sent. */
export const total = signal(0);
export const connected = signal(true);
/** When the server last answered, by this machine's clock. */
export const answered = signal<number | null>(null);
/** The server's clock less this machine's, ms. */
export const skew = signal(0);
/** This machine's clock; ticks each second. */
export const clock = signal(Date.now());
export const laneShown = signal<Lane | null>(null);
export const stateShown = signal<"waiting" | "decided">("waiting");

export const serverNow = computed(() => clock.value + skew.value);
export const queue = computed(
  () => items.value?.filter((one) => !laneShown.value || one.lane === laneShown.value) ?? null,
);

/** The lanes in which this reader may decide. */
export const ownLanes = computed<Lane[]>(() => {
  const roles = me.value?.roles ?? [];
  return (["clinical", "forensic"] as const).filter((lane) => roles.includes(`${lane}-reviewer`));
});

// --- the study that is open

export interface Trouble {
  message: string;
  remedy: string;
}

export const openId = signal<string | null>(null);
export const detail = signal<ItemDetail | null>(null);
export const trouble = signal<Trouble | null>(null);
export const draft = signal<Draft>(EMPTY);
/** A request that changes the item is under way. */
export const busy = signal(false);

export const allSeries = signal<Series[]>([]);
export const seriesUid = signal<string | null>(null);
export const slices = signal<readonly Slice[]>([]);
/** The whole series is known, not only the slices of a finding. */
export const wholeSeries = signal(false);
export const patient = signal<Patient | null>(null);
export const imageTrouble = signal<Trouble | null>(null);

export const viewer = signal<Viewer | null>(null);
export const view = signal<View | null>(null);
export const tool = signal<Tool>("window");
export const boxesShown = signal(true);
/** Image ids that are at hand; a new set when it grew. */
export const loaded = signal<ReadonlySet<string>>(new Set());

export type Target = { kind: "finding" | "addition"; id: string };
export const selected = signal<Target | null>(null);
/** A box that is being drawn or changed; without a target it becomes a new finding. */
export const editing = signal<{ target: Target | null; box: Box | null } | null>(null);

export const slice = computed(() => view.value?.slice ?? null);
export const item = computed(() => detail.value?.item ?? null);
export const review = computed(() => detail.value?.review ?? null);
export const mine = computed(() => item.value?.state === "claimed" && item.value.mine === true);
export const correcting = computed(
  () => item.value?.state === "decided" && draft.value.reason !== null,
);
/** Marks can be set: on a study that one holds, or in a correction. */
export const marking = computed(() => mine.value || correcting.value);
/** What counts of a decided item: the last correction, else the decision. */
export const standing = computed(() =>
  item.value?.state === "decided"
    ? (detail.value?.corrections?.at(-1)?.decision ?? item.value.decision ?? null)
    : null,
);
/** What is drawn and listed: the draft, or what was signed. */
export const told = computed<Draft>(() => {
  const [one, of, signed] = [item.value, review.value, standing.value];
  if (!one || !of || !signed || correcting.value) return draft.value;
  return draftOf(signed, required(one, of).length === 0);
});
export const mayDecide = computed(() => {
  const lane = item.value?.lane;
  return lane !== undefined && ownLanes.value.includes(lane);
});

/** A box as it is shown on a slice. */
export interface Mark {
  target: Target;
  label: string;
  score: number | null;
  look: "proposed" | Verdict | "added";
  box: Box;
}

export function place(sop: string, frame: number): string {
  return `${sop}/${frame}`;
}

/** Marks by place, of findings and of what a reader added. */
export const marks = computed<ReadonlyMap<string, Mark[]>>(() => {
  const found = new Map<string, Mark[]>();
  const add = (at: string, mark: Mark) => {
    const there = found.get(at);
    if (there) there.push(mark);
    else found.set(at, [mark]);
  };
  for (const finding of review.value?.findings ?? []) markFinding(finding, add);
  for (const one of told.value.additions) {
    for (const { sop_instance_uid, frame, box } of one.boxes) {
      const target: Target = { kind: "addition", id: one.key };
      add(place(sop_instance_uid, frame), {
        target,
        label: one.label || "added",
        score: null,
        look: "added",
        box,
      });
    }
  }
  return found;
});

function markFinding(finding: Finding, add: (at: string, mark: Mark) => void): void {
  const decided = told.value.findings[finding.id];
  const scores = new Map(
    finding.slices.map((one) => [place(one.sop_instance_uid, one.frame), one.score]),
  );
  for (const { sop_instance_uid, frame, box } of boxesOf(told.value, finding)) {
    const at = place(sop_instance_uid, frame);
    add(at, {
      target: { kind: "finding", id: finding.id },
      label: decided?.label || finding.label,
      score: scores.get(at) ?? null,
      look: decided?.verdict ?? "proposed",
      box,
    });
  }
}

export const currentMarks = computed(() => {
  const shown = slice.value;
  return shown ? (marks.value.get(place(shown.sop, shown.frame)) ?? []) : [];
});

// --- what lies over the page

export const helpOpen = signal(false);
export const signOpen = signal(false);
export const shortcuts = signal(localStorage.getItem("slicewatch.shortcuts") !== "off");
shortcuts.subscribe((on) => localStorage.setItem("slicewatch.shortcuts", on ? "on" : "off"));

export interface Notice {
  text: string;
  tone: "plain" | "warning";
}
export const notice = signal<Notice | null>(null);
let fading: ReturnType<typeof setTimeout> | undefined;

/** Say something in passing. */
export function say(text: string, tone: Notice["tone"] = "plain"): void {
  notice.value = { text, tone };
  clearTimeout(fading);
  fading = setTimeout(() => {
    notice.value = null;
  }, 7000);
}
