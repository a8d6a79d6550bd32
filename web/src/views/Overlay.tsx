import { useRef } from "preact/hooks";

import { label } from "../format";
import type { Box } from "../records";
import { keepBox, select } from "../session";
import { boxesShown, currentMarks, editing, type Mark, selected, slice, view, viewer } from "../state";
import type { Placement } from "../viewer";

const HANDLE = 5;
const NEAR = 9;

type Corner = { x: 0 | 2; y: 1 | 3 };
const CORNERS: readonly Corner[] = [
  { x: 0, y: 1 },
  { x: 2, y: 1 },
  { x: 0, y: 3 },
  { x: 2, y: 3 },
];

/** Boxes over the image, and the one that is being drawn. */
export function Overlay() {
  const placement = view.value?.placement;
  const edit = editing.value;
  if (!placement || !slice.value) return null;
  return (
    <>
      <svg class="overlay" aria-hidden="true">
        {boxesShown.value &&
          currentMarks.value
            .filter((mark) => !(edit?.target && edit.target.id === mark.target.id))
            .map((mark) => <Shown key={mark.target.id} mark={mark} placement={placement} />)}
        {edit?.box && <Drawn box={edit.box} placement={placement} />}
      </svg>
      {edit && <Surface placement={placement} />}
    </>
  );
}

function corners([x1, y1, x2, y2]: Box, [a, b, c, d, e, f]: Placement): [number, number][] {
  const at = (u: number, v: number): [number, number] => [a * u + c * v + e, b * u + d * v + f];
  return [at(x1, y1), at(x2, y1), at(x2, y2), at(x1, y2)];
}

function points(box: Box, placement: Placement): string {
  return corners(box, placement)
    .map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`)
    .join(" ");
}

function Shown({ mark, placement }: { mark: Mark; placement: Placement }) {
  const at = corners(mark.box, placement);
  const left = Math.min(...at.map(([x]) => x));
  const top = Math.min(...at.map(([, y]) => y));
  const current = selected.value?.id === mark.target.id;
  const score = mark.score === null ? "" : ` ${mark.score.toFixed(2)}`;
  return (
    <g class={`mark ${mark.look} ${current ? "current" : ""}`} data-mark={mark.target.id}>
      <polygon class="under" points={points(mark.box, placement)} />
      <polygon class="line" points={points(mark.box, placement)} />
      <text
        x={Math.max(4, left)}
        y={Math.max(14, top - 6)}
        onClick={() => select(mark.target, { jump: false })}
      >
        {label(mark.label)}
        {score}
      </text>
    </g>
  );
}

function Drawn({ box, placement }: { box: Box; placement: Placement }) {
  return (
    <g class="mark drawing">
      <polygon class="under" points={points(box, placement)} />
      <polygon class="line" points={points(box, placement)} />
      {corners(box, placement).map(([x, y], n) => (
        <rect key={n} x={x - HANDLE / 2} y={y - HANDLE / 2} width={HANDLE} height={HANDLE} />
      ))}
    </g>
  );
}

/** Takes the pointer while a box is drawn: a corner or the inside moves it, elsewhere begins anew. */
function Surface({ placement }: { placement: Placement }) {
  const drag = useRef<((x: number, y: number) => Box) | null>(null);

  const at = (event: PointerEvent): [number, number] => {
    const frame = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const x = event.clientX - frame.left;
    const y = event.clientY - frame.top;
    return viewer.value?.at(placement, x, y) ?? [0, 0];
  };
  const down = (event: PointerEvent) => {
    if (event.button !== 0) return;
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    drag.current = begin(editing.value?.box ?? null, at(event), reach(placement));
    event.preventDefault();
  };
  const move = (event: PointerEvent) => {
    const edit = editing.value;
    if (drag.current && edit) editing.value = { ...edit, box: drag.current(...at(event)) };
  };
  const up = (event: PointerEvent) => {
    const edit = editing.value;
    const [x1 = 0, y1 = 0, x2 = 0, y2 = 0] = edit?.box ?? [];
    drag.current = null;
    (event.currentTarget as HTMLElement).releasePointerCapture(event.pointerId);
    const drawn = Math.abs(x2 - x1) >= 2 && Math.abs(y2 - y1) >= 2;
    if (edit && drawn) keepBox();
    else if (edit) editing.value = { ...edit, box: null };
  };
  return <div class="surface" onPointerDown={down} onPointerMove={move} onPointerUp={up} />;
}

/** How far around a corner it is taken, pixels of the frame. */
function reach([a, b]: Placement): number {
  return NEAR / Math.hypot(a, b);
}

function begin(
  box: Box | null,
  [x, y]: [number, number],
  near: number,
): (x: number, y: number) => Box {
  if (box) {
    const corner = CORNERS.find((one) => Math.hypot(box[one.x] - x, box[one.y] - y) <= near);
    if (corner) {
      return (u, v) => {
        const moved: Box = [...box];
        moved[corner.x] = u;
        moved[corner.y] = v;
        return moved;
      };
    }
    const [x1, y1, x2, y2] = box;
    if (x >= x1 && x <= x2 && y >= y1 && y <= y2) {
      return (u, v) => [x1 + u - x, y1 + v - y, x2 + u - x, y2 + v - y];
    }
  }
  return (u, v) => [x, y, u, v];
}
