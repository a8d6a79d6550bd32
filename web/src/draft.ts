/** What a reader has marked and not yet signed. Pure: each change gives a new draft. */

import type {
  Addition,
  Box,
  Decision,
  Finding,
  FindingDecision,
  Item,
  PlacedBox,
  Review,
  StoredDecision,
  Verdict,
} from "./records";

export interface DraftAddition extends Addition {
  /** Within the draft. */
  key: string;
  comment: string;
}

export interface Draft {
  findings: Record<string, FindingDecision>;
  additions: DraftAddition[];
  comment: string;
  /** The word on the whole, where no finding has to be decided. */
  overall: Verdict | null;
  /** Why a signed decision is corrected; `null`: it is no correction. */
  reason: string | null;
}

export const EMPTY: Draft = {
  findings: {},
  additions: [],
  comment: "",
  overall: null,
  reason: null,
};

/**
 * A signed decision as a draft, to be drawn or corrected.
 *
 * @param whole - No finding has to be decided: the verdict is on the study as a whole.
 */
export function draftOf(decision: StoredDecision, whole: boolean): Draft {
  const findings = Object.entries(decision.findings ?? {}).map(([id, told]) => [id, filled(told)]);
  return {
    ...EMPTY,
    findings: Object.fromEntries(findings),
    additions: (decision.additions ?? []).map((one, n) => ({
      key: `signed-${n + 1}`,
      label: one.label,
      comment: one.comment ?? "",
      boxes: one.boxes,
    })),
    comment: decision.comment ?? "",
    overall: whole ? decision.verdict : null,
  };
}

/** What the reader said of a finding; the server also writes what was left empty. */
function filled(told: FindingDecision | Verdict): FindingDecision {
  if (typeof told === "string") return { verdict: told };
  const { verdict, label, comment, boxes } = told;
  return {
    verdict,
    ...(label && { label }),
    ...(comment && { comment }),
    ...(boxes?.length && { boxes }),
  };
}

export function isEmpty(draft: Draft): boolean {
  return (
    Object.keys(draft.findings).length === 0 &&
    draft.additions.length === 0 &&
    draft.comment === "" &&
    draft.overall === null &&
    draft.reason === null
  );
}

export function withVerdict(draft: Draft, finding: string, verdict: Verdict | null): Draft {
  const { [finding]: before, ...others } = draft.findings;
  if (verdict === null) return { ...draft, findings: others };
  const comment = before?.comment ? { comment: before.comment } : {};
  const kept = verdict === "changed" ? (before ?? {}) : comment;
  return { ...draft, findings: { ...others, [finding]: { ...kept, verdict } } };
}

export function withChange(draft: Draft, finding: string, change: Partial<FindingDecision>): Draft {
  const before = draft.findings[finding] ?? { verdict: "changed" };
  return { ...draft, findings: { ...draft.findings, [finding]: { ...before, ...change } } };
}

/** The boxes of a finding as the draft has them. */
export function boxesOf(draft: Draft, finding: Finding): PlacedBox[] {
  return draft.findings[finding.id]?.boxes ?? finding.slices.map(placed);
}

function placed({ sop_instance_uid, frame, box }: PlacedBox): PlacedBox {
  return { sop_instance_uid, frame, box };
}

/** A list of boxes with one of a frame set, in the place of the one that was there. */
export function withBox(boxes: readonly PlacedBox[], box: PlacedBox): PlacedBox[] {
  const others = boxes.filter(
    (one) => one.sop_instance_uid !== box.sop_instance_uid || one.frame !== box.frame,
  );
  return [...others, box];
}

export function withAddition(draft: Draft, addition: DraftAddition): Draft {
  const known = draft.additions.some((one) => one.key === addition.key);
  const additions = known
    ? draft.additions.map((one) => (one.key === addition.key ? addition : one))
    : [...draft.additions, addition];
  return { ...draft, additions };
}

export function withoutAddition(draft: Draft, key: string): Draft {
  return { ...draft, additions: draft.additions.filter((one) => one.key !== key) };
}

/** The findings that the item is on the worklist for: those that met one of its rules. */
export function required(item: Item, review: Review): Finding[] {
  if (item.lane === "forensic") return [];
  const rules = new Set(item.rules);
  return review.findings.filter((one) => one.rules?.some((rule) => rules.has(rule)));
}

/** What is still missing before it can be signed, as a reader reads it; empty: nothing. */
export function openQuestions(draft: Draft, item: Item, review: Review): string[] {
  const asked = required(item, review);
  const left = asked.filter((one) => !draft.findings[one.id]).length;
  const questions = [];
  if (left === 1) questions.push("1 finding has no verdict");
  if (left > 1) questions.push(`${left} findings have no verdict`);
  if (asked.length === 0 && draft.overall === null) questions.push("the study has no verdict");
  if (draft.additions.some((one) => one.label.trim() === "")) {
    questions.push("an added finding has no label");
  }
  if (draft.reason?.trim() === "") questions.push("the correction has no reason");
  return questions;
}

/** The word on the whole that follows from the single ones. */
export function verdictOf(draft: Draft): Verdict {
  if (draft.overall !== null) return draft.overall;
  const verdicts = new Set(Object.values(draft.findings).map((one) => one.verdict));
  if (draft.additions.length > 0 || verdicts.size !== 1) return "changed";
  return [...verdicts][0] ?? "changed";
}

export function decisionOf(draft: Draft): Decision {
  return {
    verdict: verdictOf(draft),
    findings: draft.findings,
    additions: draft.additions.map(({ label, comment, boxes }) => ({
      label: label.trim(),
      ...(comment.trim() ? { comment: comment.trim() } : {}),
      boxes,
    })),
    comment: draft.comment.trim(),
  };
}

/** What of a draft holds for another review of the study: verdicts of findings that it has too. */
export function carriedOver(draft: Draft, review: Review): Draft {
  const known = new Set(review.findings.map((one) => one.id));
  const findings = Object.entries(draft.findings).filter(([id]) => known.has(id));
  return { ...draft, findings: Object.fromEntries(findings) };
}

/** A box with its corners in order, inside the frame, and at least two pixels wide and high. */
export function tidy([x1, y1, x2, y2]: Box, columns: number, rows: number): Box {
  const side = (a: number, b: number, most: number): [number, number] => {
    const low = Math.max(0, Math.min(a, b, most - 2));
    const high = Math.min(most, Math.max(a, b, low + 2));
    return [round(low), round(high)];
  };
  const [left, right] = side(x1, x2, columns);
  const [top, bottom] = side(y1, y2, rows);
  return [left, top, right, bottom];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
