/** What the server sends: `slicewatch/records.py`, `worklist.py` and `decision.py` as JSON. */

/** Pixels of the source frame, pixel edges: x1, y1, x2, y2; x to the right, y down. */
export type Box = [number, number, number, number];
export type Lane = "clinical" | "forensic";
export type Verdict = "confirmed" | "rejected" | "changed";

export interface Me {
  user: string;
  name: string;
  roles: string[];
  development: boolean;
}

export interface Item {
  id: string;
  study: string;
  generation: number;
  lane: Lane;
  urgency: number;
  summary: string;
  rules: string[];
  created: string;
  state: "open" | "claimed" | "decided" | "superseded";
  level?: number;
  holder?: string | null;
  holder_name?: string | null;
  claimed?: string | null;
  decided?: string | null;
  decision?: StoredDecision | null;
  due?: string | null;
  sla_s?: number;
  overdue?: boolean;
  raised?: boolean;
  stage?: "first" | "second" | "adjudication";
  readings?: number;
  readers_needed?: number;
  mine?: boolean;
}

export interface PlacedBox {
  sop_instance_uid: string;
  frame: number;
  box: Box;
}

export interface FindingSlice extends PlacedBox {
  blob: string;
  score: number;
  instance_number?: number | null;
}

export interface Finding {
  id: string;
  label: string;
  score: number;
  mean_score: number;
  series_instance_uid: string;
  slices: FindingSlice[];
  model?: string;
  extent_mm?: [number, number, number] | null;
  planes?: number;
  rules?: string[];
}

export interface Unscreened {
  series_instance_uid: string;
  reason: string;
  count: number;
  /** Names in the container of originals: study/series/instance.dcm. */
  blobs?: string[];
  detail?: string;
}

export interface Review {
  study_instance_uid: string;
  generation: number;
  status: string;
  coverage: {
    received_objects: number;
    images: number;
    screened: number;
    not_screened?: Unscreened[];
    rejected?: Unscreened[];
    missing?: string[];
  };
  findings: Finding[];
  integrity: {
    code: string;
    severity: "info" | "warning" | "error";
    explanation: string;
    series_instance_uid?: string;
    blobs?: string[];
  }[];
  models: { name: string; version: string; threshold: number; slices: number; series?: string[] }[];
  policy_name: string;
  folded_findings?: { label: string; count: number; score: number }[];
  disclaimer: string;
}

export interface FindingDecision {
  verdict: Verdict;
  label?: string;
  comment?: string;
  boxes?: PlacedBox[];
}

export interface Addition {
  label: string;
  comment?: string;
  boxes: PlacedBox[];
}

export interface Decision {
  verdict?: Verdict;
  findings: Record<string, FindingDecision>;
  additions: Addition[];
  comment: string;
}

export interface StoredDecision {
  verdict: Verdict;
  findings?: Record<string, FindingDecision | Verdict>;
  additions?: Addition[];
  comment?: string;
}

export interface Reading {
  stage: string;
  name: string;
  time: string;
  decision: StoredDecision;
}

export interface Correction {
  name: string;
  time: string;
  reason: string;
  decision: StoredDecision;
}

export interface ItemDetail {
  item: Item;
  review: Review;
  readings?: Reading[];
  corrections?: Correction[];
  superseded_by?: string | null;
}

/** DICOM JSON (PS3.18 annex F): eight-digit tag to element. */
export type DicomJson = Record<string, { vr: string; Value?: unknown[] }>;
