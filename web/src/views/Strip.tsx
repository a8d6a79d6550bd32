import { boxesOf } from "../draft";
import type { PlacedBox, Verdict } from "../records";
import {
  loaded,
  place,
  review,
  seriesUid,
  slices,
  type Target,
  told,
  view,
  viewer,
  wholeSeries,
} from "../state";
import { select } from "../session";

const TRACKS = 4;

interface Run {
  from: number;
  to: number;
  target: Target;
  look: "proposed" | Verdict | "added";
  track: number;
}

/** The slices of the series as a line: which carry findings, which are at hand, where one is. */
export function Strip() {
  const count = slices.value.length;
  const index = view.value?.index ?? 0;
  if (!wholeSeries.value) {
    return (
      <div class="strip" aria-hidden="true">
        <span class="aside">{count ? "The rest of the series is on its way …" : ""}</span>
      </div>
    );
  }
  const runs = stacked(allRuns());
  return (
    <div
      class="strip"
      role="slider"
      tabIndex={0}
      aria-label="Slices of the series"
      aria-orientation="horizontal"
      aria-valuemin={1}
      aria-valuemax={count}
      aria-valuenow={index + 1}
      aria-valuetext={`slice ${index + 1} of ${count}`}
      onPointerDown={grab}
      onPointerMove={(event) => event.buttons === 1 && scrub(event)}
    >
      <svg viewBox={`0 0 ${count} 10`} preserveAspectRatio="none" aria-hidden="true">
        {hidden().map(([from, to]) => (
          <rect key={from} class="unscreened" x={from} y={0} width={to - from + 1} height={8} />
        ))}
        {runs.map((run) => (
          <rect
            key={`${run.target.id}-${run.from}`}
            class={`run ${run.look}`}
            x={run.from}
            y={run.track * 2}
            width={run.to - run.from + 1}
            height={1.6}
            onClick={() => select(run.target)}
          />
        ))}
        {atHand().map(([from, to]) => (
          <rect key={from} class="hand" x={from} y={9} width={to - from + 1} height={1} />
        ))}
      </svg>
      {/* Not in the drawing, which is stretched. */}
      <span class="strip-inner">
        <Caret at={(index + 0.5) / count} />
      </span>
    </div>
  );
}

function Caret({ at }: { at: number }) {
  return (
    <span
      class="caret"
      ref={(element) => element?.style.setProperty("left", `${(at * 100).toFixed(3)}%`)}
    />
  );
}

function grab(event: PointerEvent): void {
  (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
  scrub(event);
}

function scrub(event: PointerEvent): void {
  const line = (event.currentTarget as HTMLElement).querySelector("svg");
  const box = line?.getBoundingClientRect();
  if (!box) return;
  const part = (event.clientX - box.left) / box.width;
  viewer.value?.goTo(Math.floor(part * slices.value.length));
}

/** Sorted numbers as runs of neighbours. */
function together(numbers: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  for (const one of numbers.toSorted((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && one <= last[1] + 1) last[1] = Math.max(last[1], one);
    else found.push([one, one]);
  }
  return found;
}

function indices(boxes: readonly PlacedBox[]): number[] {
  const places = new Map(slices.value.map((one, n) => [place(one.sop, one.frame), n]));
  return boxes
    .map((one) => places.get(place(one.sop_instance_uid, one.frame)))
    .filter((one): one is number => one !== undefined);
}

function allRuns(): Omit<Run, "track">[] {
  const found: Omit<Run, "track">[] = [];
  for (const finding of review.value?.findings ?? []) {
    if (finding.series_instance_uid !== seriesUid.value) continue;
    const decided = told.value.findings[finding.id];
    for (const [from, to] of together(indices(boxesOf(told.value, finding)))) {
      const target = { kind: "finding" as const, id: finding.id };
      found.push({ from, to, target, look: decided?.verdict ?? "proposed" });
    }
  }
  for (const one of told.value.additions) {
    for (const [from, to] of together(indices(one.boxes))) {
      found.push({ from, to, target: { kind: "addition", id: one.key }, look: "added" });
    }
  }
  return found;
}

/** Runs that overlap lie below each other. */
function stacked(runs: readonly Omit<Run, "track">[]): Run[] {
  const ends: number[] = [];
  return runs
    .toSorted((a, b) => a.from - b.from)
    .map((run) => {
      let track = ends.findIndex((end) => end < run.from);
      if (track < 0) track = Math.min(ends.length, TRACKS - 1);
      ends[track] = Math.max(ends[track] ?? 0, run.to);
      return { ...run, track };
    });
}

function atHand(): [number, number][] {
  const there = loaded.value;
  return together(
    slices.value.flatMap((one, n) => (there.has(one.imageId) ? [n] : [])),
  );
}

/** Slices of this series that no model looked at. */
function hidden(): [number, number][] {
  const coverage = review.value?.coverage;
  const groups = [...(coverage?.not_screened ?? []), ...(coverage?.rejected ?? [])];
  const sops = new Set(
    groups
      .filter((one) => one.series_instance_uid === seriesUid.value)
      .flatMap((one) => one.blobs ?? [])
      .map((blob) => blob.split("/").at(-1)?.replace(/\.dcm$/, "")),
  );
  return together(slices.value.flatMap((one, n) => (sops.has(one.sop) ? [n] : [])));
}
