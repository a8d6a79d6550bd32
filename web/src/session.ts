/** What a reader does with a study: open it, look at its images, mark findings, draw. */

import * as api from "./api";
import * as drafts from "./draft";
import { holder } from "./format";
import type { Box, Finding, FindingSlice, Item, ItemDetail, PlacedBox, Verdict } from "./records";
import { patient as patientOf, series as seriesFrom, slices as slicesOf } from "./stack";
import type { Slice } from "./stack";
import {
  allSeries,
  detail,
  draft,
  editing,
  imageTrouble,
  item,
  loaded,
  marking,
  mayDecide,
  openId,
  patient,
  place,
  review,
  say,
  selected,
  seriesUid,
  signOpen,
  slice,
  slices,
  standing,
  type Target,
  told,
  trouble,
  view,
  viewer,
  wholeSeries,
} from "./state";
import type { Viewer, Window } from "./viewer";

const SOFT_TISSUE: Window = { centre: 40, width: 400 };
const WINDOW_CENTER = "00281050";

/** Drafts of this visit by study and lane, so that a newer review finds them again. */
const kept = new Map<string, drafts.Draft>();
let opening = new AbortController();
let additions = 0;
/** Openings of series so far: only the last one counts, also where it is of the same series. */
let turns = 0;

// --- opening ----------------------------------------------------------------------------------

/** Open an item of the worklist. */
export async function open(id: string): Promise<void> {
  performance.mark("slicewatch:open");
  keepDraft();
  opening.abort();
  opening = new AbortController();
  const { signal } = opening;
  openId.value = id;
  document.getElementById("viewport")?.focus();
  detail.value = trouble.value = view.value = patient.value = null;
  closeSeries();
  allSeries.value = [];
  selected.value = null;
  signOpen.value = false;
  draft.value = drafts.EMPTY;
  try {
    const found = await api.item(id, signal);
    if (signal.aborted) return;
    arrive(found);
    await Promise.all([listSeries(found.item.study, signal), openImages(found, signal)]);
  } catch (error) {
    if (!signal.aborted) trouble.value = explained(error);
  }
}

function arrive(found: ItemDetail): void {
  detail.value = found;
  const before = kept.get(draftKey(found.item));
  const correction = kept.get(found.item.id);
  const undecided = found.item.state === "open" || found.item.state === "claimed";
  if (before && undecided) draft.value = drafts.carriedOver(before, found.review);
  if (correction && found.item.state === "decided") draft.value = correction;
}

/** Close what is open and go back to the queue. */
export function close(): void {
  keepDraft();
  opening.abort();
  openId.value = detail.value = trouble.value = view.value = patient.value = null;
  closeSeries();
  selected.value = null;
  draft.value = drafts.EMPTY;
}

function closeSeries(): void {
  slices.value = [];
  loaded.value = new Set();
  wholeSeries.value = false;
  imageTrouble.value = editing.value = null;
  view.value = null;
}

/** A correction is of one item; other marks go along to a newer review. */
function draftKey(one: Item): string {
  return draft.value.reason === null ? `${one.study}/${one.lane}` : one.id;
}

function keepDraft(): void {
  const one = item.value;
  if (!one) return;
  if (drafts.isEmpty(draft.value)) kept.delete(draftKey(one));
  else kept.set(draftKey(one), draft.value);
}

/** The item was signed: its draft is no more. */
export function dropDraft(one: Item): void {
  kept.delete(draftKey(one));
  draft.value = drafts.EMPTY;
}

/** Begin to correct what was signed, from what counts now. */
export function correct(): void {
  const [one, of] = [item.value, review.value];
  if (!one || !of || !standing.value || !mayDecide.value) {
    say("Only a signed decision is corrected, by a reviewer of its lane.", "warning");
    return;
  }
  if (draft.value.reason === null) {
    const before = drafts.draftOf(standing.value, drafts.required(one, of).length === 0);
    draft.value = { ...before, reason: "" };
  }
}

/** Whether something was marked that nobody signed. */
export function unsigned(): boolean {
  keepDraft();
  return kept.size > 0;
}

async function listSeries(study: string, signal: AbortSignal): Promise<void> {
  const found = (await api.seriesOf(study, signal)).map(seriesFrom);
  if (!signal.aborted) allSeries.value = found;
}

// --- images -----------------------------------------------------------------------------------

/** The key slice of the first finding at once, then the rest of its series. */
async function openImages(found: ItemDetail, signal: AbortSignal): Promise<void> {
  const { study } = found.item;
  const first = firstFinding(found);
  if (first) {
    select({ kind: "finding", id: first.id }, { jump: false });
    await openSeries(first.series_instance_uid, keySlice(first.slices), signal);
    return;
  }
  const known = (await api.seriesOf(study, signal)).map(seriesFrom);
  const suspect = found.review.integrity.find((one) => one.series_instance_uid);
  const uid =
    suspect?.series_instance_uid ?? known.find((one) => !NO_IMAGES.has(one.modality))?.uid;
  if (uid) await openSeries(uid, null, signal);
  else imageTrouble.value = { message: "the study has no images", remedy: "" };
}

const NO_IMAGES = new Set(["SR", "RTSTRUCT", "PR", "KO", "RTPLAN", "REG"]);

function firstFinding({ item: one, review: of }: ItemDetail): Finding | undefined {
  const asked = drafts.required(one, of);
  return (asked.length ? asked : of.findings).toSorted((a, b) => b.score - a.score)[0];
}

function keySlice(found: readonly FindingSlice[]): FindingSlice | null {
  return found.reduce<FindingSlice | null>(
    (best, one) => (best === null || one.score > best.score ? one : best),
    null,
  );
}

/** Show a series, from the given frame where there is one. */
export async function openSeries(
  uid: string,
  at: PlacedBox | null,
  signal: AbortSignal = opening.signal,
): Promise<void> {
  const study = item.value?.study;
  if (!study) return;
  closeSeries();
  seriesUid.value = uid;
  const turn = ++turns;
  const still = () => !signal.aborted && turn === turns;
  try {
    const all = api.metadata(study, uid, null, signal);
    // Handled below; until then a failure must not count as nobody's.
    all.catch(() => undefined);
    if (at) {
      const [one] = await api.metadata(study, uid, at.sop_instance_uid, signal);
      if (one && still()) await show(slicesOf(study, uid, [one]), at, still);
    }
    const frames = slicesOf(study, uid, await all);
    if (!still()) return;
    wholeSeries.value = true;
    if (frames.length) await show(frames, slice.value ? shown() : at, still);
    else imageTrouble.value = { message: "the series has no images", remedy: "" };
  } catch (error) {
    if (still()) imageTrouble.value = explained(error);
  }
}

function shown(): PlacedBox | null {
  const one = slice.value;
  return one && { sop_instance_uid: one.sop, frame: one.frame, box: [0, 0, 0, 0] };
}

async function show(
  frames: readonly Slice[],
  at: PlacedBox | null,
  still: () => boolean,
): Promise<void> {
  const one = frames[0];
  const where = await madeViewer();
  if (!one || !still()) return;
  patient.value = patientOf(one.metadata);
  const index = at ? indexOf(frames, at) : Math.floor(frames.length / 2);
  slices.value = frames;
  const modality = one.metadata["00080060"]?.Value?.[0];
  const unwindowed = !one.metadata[WINDOW_CENTER]?.Value?.length;
  await where.show(frames, Math.max(0, index), modality === "CT" && unwindowed ? SOFT_TISSUE : null);
  if (still()) imageTrouble.value = null;
}

/** The viewer, which a study that is opened at once has to wait for. */
function madeViewer(): Promise<Viewer> {
  return new Promise((resolve) => {
    const stop = viewer.subscribe((made) => {
      if (!made) return;
      resolve(made);
      queueMicrotask(() => stop());
    });
  });
}

function indexOf(frames: readonly Slice[], at: PlacedBox): number {
  return frames.findIndex((one) => one.sop === at.sop_instance_uid && one.frame === at.frame);
}

/** Try again what failed. */
export function retry(): void {
  const id = openId.value;
  if (trouble.value && id) void open(id);
  else if (seriesUid.value) void openSeries(seriesUid.value, shown());
}

// --- findings ---------------------------------------------------------------------------------

/** Select a finding and go to the slice that shows it best, unless it is on this one. */
export function select(target: Target, { jump = true } = {}): void {
  selected.value = target;
  if (jump) void jumpTo(target);
}

async function jumpTo(target: Target): Promise<void> {
  const finding = review.value?.findings.find((one) => one.id === target.id);
  const boxes = finding
    ? drafts.boxesOf(told.value, finding)
    : (told.value.additions.find((one) => one.key === target.id)?.boxes ?? []);
  // Where the viewer is going: the slice that is still drawn may be left in the next moment.
  const here = viewer.value ? slices.value[viewer.value.index] : slice.value;
  if (here && boxes.some((one) => one.sop_instance_uid === here.sop && one.frame === here.frame)) {
    return;
  }
  const at = (finding && keySlice(finding.slices)) ?? boxes[0];
  if (!at) return;
  const index = indexOf(slices.value, at);
  if (index >= 0) viewer.value?.goTo(index);
  else if (finding) await openSeries(finding.series_instance_uid, at);
}

/** All that can be selected, in the order of the list. */
export function targets(): Target[] {
  return [
    ...(review.value?.findings ?? []).map((one) => ({ kind: "finding" as const, id: one.id })),
    ...told.value.additions.map((one) => ({ kind: "addition" as const, id: one.key })),
  ];
}

export function selectNeighbour(step: 1 | -1): void {
  const all = targets();
  if (all.length === 0) return say("This review lists no finding.");
  const at = all.findIndex((one) => one.id === selected.value?.id);
  const next = all[at < 0 ? 0 : (at + step + all.length) % all.length];
  if (next) select(next);
}

/** Whether marks can be set; says what stands in the way. */
export function canMark(): boolean {
  if (marking.value) return true;
  const one = item.value;
  if (!one) say("Open a study first (Q goes to the queue).", "warning");
  else if (!mayDecide.value) say(`Deciding takes the role ${one.lane}-reviewer.`, "warning");
  else if (one.state === "open") say("Claim the study first (T).", "warning");
  else if (one.state === "claimed") say(`${holder(one)} holds this study.`, "warning");
  else if (one.state === "decided") say("This review is decided: K corrects it.", "warning");
  else say(`This review is ${one.state}: nothing can be changed.`, "warning");
  return false;
}

/** Give the selected finding a verdict; the one that it has takes it back. */
export function judge(verdict: Verdict, finding = selectedFinding()): void {
  if (!canMark()) return;
  if (!finding) return say("Select a finding first (N).", "warning");
  const same = draft.value.findings[finding]?.verdict === verdict;
  draft.value = drafts.withVerdict(draft.value, finding, same ? null : verdict);
  selected.value = { kind: "finding", id: finding };
}

export function clearVerdict(): void {
  const finding = selectedFinding();
  if (finding && canMark()) draft.value = drafts.withVerdict(draft.value, finding, null);
}

function selectedFinding(): string | null {
  return selected.value?.kind === "finding" ? selected.value.id : null;
}

// --- boxes ------------------------------------------------------------------------------------

/** Begin to draw: a missed finding, or the box of a target on this slice. */
export function draw(target: Target | null): void {
  if (!canMark()) return;
  const here = slice.value;
  if (!here) return say("There is no image to draw on.", "warning");
  editing.value = { target, box: target ? boxOn(target, here) : null };
}

function boxOn(target: Target, here: Slice): Box | null {
  const finding = review.value?.findings.find((one) => one.id === target.id);
  const boxes = finding
    ? drafts.boxesOf(draft.value, finding)
    : (draft.value.additions.find((one) => one.key === target.id)?.boxes ?? []);
  const at = place(here.sop, here.frame);
  return boxes.find((one) => place(one.sop_instance_uid, one.frame) === at)?.box ?? null;
}

/** Keep the box that is being drawn. */
export function keepBox(): void {
  const edit = editing.value;
  const here = slice.value;
  editing.value = null;
  if (!edit?.box || !here || !canMark()) return;
  const box: PlacedBox = {
    sop_instance_uid: here.sop,
    frame: here.frame,
    box: drafts.tidy(edit.box, here.columns, here.rows),
  };
  const { target } = edit;
  if (target?.kind === "finding") changeBox(target.id, box);
  else addBox(target?.id ?? null, box);
}

function changeBox(id: string, box: PlacedBox): void {
  const finding = review.value?.findings.find((one) => one.id === id);
  if (!finding) return;
  const boxes = drafts.withBox(drafts.boxesOf(draft.value, finding), box);
  draft.value = drafts.withChange(draft.value, id, { verdict: "changed", boxes });
}

function addBox(key: string | null, box: PlacedBox): void {
  const before = draft.value.additions.find((one) => one.key === key);
  const addition = before
    ? { ...before, boxes: drafts.withBox(before.boxes, box) }
    : { key: `added-${++additions}`, label: usualLabel(), comment: "", boxes: [box] };
  draft.value = drafts.withAddition(draft.value, addition);
  selected.value = { kind: "addition", id: addition.key };
}

/** What the models call what they find in this study: most often the missed one is another. */
function usualLabel(): string {
  return draft.value.additions.at(-1)?.label ?? review.value?.findings[0]?.label ?? "";
}

export function removeAddition(key: string): void {
  if (!canMark()) return;
  draft.value = drafts.withoutAddition(draft.value, key);
  if (selected.value?.id === key) selected.value = null;
}

/** An error as the page tells it. */
export function explained(error: unknown): { message: string; remedy: string } {
  if (error instanceof api.Refusal) return { message: error.message, remedy: error.remedy };
  if (error instanceof api.Unreachable) {
    return { message: "The connection is lost", remedy: "nothing was changed; try again" };
  }
  return { message: "The images cannot be shown", remedy: String(error).slice(0, 200) };
}
