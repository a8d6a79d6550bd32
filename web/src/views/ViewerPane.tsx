import { useEffect, useRef } from "preact/hooks";

import { count, signed } from "../format";
import { apply, inUse, presets } from "../presets";
import type { Series } from "../stack";
import { draw, openSeries, retry } from "../session";
import {
  allSeries,
  boxesShown,
  clock,
  detail,
  editing,
  imageTrouble,
  loaded,
  marking,
  openId,
  patient,
  review,
  seriesUid,
  slice,
  slices,
  tool,
  trouble,
  view,
  viewer,
} from "../state";
import { Viewer, type Tool } from "../viewer";
import { Overlay } from "./Overlay";
import { Strip } from "./Strip";
import { Superseded } from "./Superseded";

export function ViewerPane() {
  return (
    <main class="viewer" aria-label="Images">
      <Toolbar />
      <Superseded />
      <div class={`stage ${openId.value ? "" : "blank"}`}>
        <Canvas />
        <Overlay />
        <Corners />
        <Over />
        <Drawing />
      </div>
      <Strip />
    </main>
  );
}

/** The element that Cornerstone draws into; made once. */
function Canvas() {
  const outer = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!inner.current || !outer.current) return;
    const here = outer.current;
    Viewer.create(inner.current).then(
      (made) => {
        attach(made, here);
        viewer.value = made;
      },
      (error: unknown) => {
        imageTrouble.value = {
          message: "This browser cannot show images",
          remedy: String(error).slice(0, 200),
        };
      },
    );
  }, []);
  return (
    <div
      id="viewport"
      ref={outer}
      class="viewport"
      tabIndex={0}
      role="group"
      aria-label="Image: arrow keys scroll, ? shows all keys"
      onWheel={(event) => {
        event.preventDefault();
        scroll(event);
      }}
      onContextMenu={(event) => event.preventDefault()}
    >
      {/* Cornerstone takes its element out of the order of focus. */}
      <div ref={inner} class="canvas" />
    </div>
  );
}

let wheel = 0;

/** A notch of a wheel is a slice; a touchpad's small steps add up to one. */
function scroll(event: WheelEvent): void {
  const notch = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 1 : 40;
  wheel += event.deltaY / notch;
  const steps = Math.trunc(wheel);
  if (steps === 0) return;
  const limited = Math.abs(event.deltaY) >= 100 ? Math.sign(steps) : steps;
  wheel = Math.abs(event.deltaY) >= 100 ? 0 : wheel - steps;
  const made = viewer.value;
  made?.goTo(made.index + limited);
}

function attach(made: Viewer, element: HTMLElement): void {
  let painted = 0;
  made.onPaint = (now) => {
    if (now.index !== view.value?.index) painted += 1;
    view.value = now;
    element.dataset.slice = String(now.index + 1);
    element.dataset.painted = String(painted);
    if (performance.getEntriesByName("slicewatch:image").length === 0) {
      performance.mark("slicewatch:image");
    }
  };
  made.onError = (one) => {
    imageTrouble.value = {
      message: `Slice ${one.instanceNumber ?? ""} cannot be shown`,
      remedy: "the server did not give its pixels; scroll on, or try again",
    };
  };
  let pending = false;
  const fresh = new Set<string>();
  made.onLoaded = (imageId) => {
    if (loaded.value.has(imageId)) return;
    fresh.add(imageId);
    if (pending) return;
    // Five hundred of them come in seconds; the strip is drawn four times in one.
    pending = true;
    setTimeout(() => {
      pending = false;
      loaded.value = new Set([...loaded.value, ...fresh]);
      element.dataset.loaded = String(loaded.value.size);
      fresh.clear();
    }, 250);
  };
}

function Toolbar() {
  const current = inUse();
  const choose = (one: Tool) => {
    tool.value = one;
    viewer.value?.useTool(one);
  };
  const button = (one: Tool, text: string, key: string) => (
    <button
      type="button"
      aria-pressed={tool.value === one}
      title={`Drag: ${text.toLowerCase()} (${key})`}
      onClick={() => choose(one)}
    >
      {text}
    </button>
  );
  return (
    <div class="toolbar" role="toolbar" aria-label="Viewer">
      <SeriesChoice />
      <span class="choice" role="group" aria-label="What dragging does">
        {button("window", "Window", "W")}
        {button("pan", "Pan", "H")}
        {button("zoom", "Zoom", "Z")}
      </span>
      <label class="preset">
        <span class="hidden">Window preset</span>
        <select
          value={current?.key ?? ""}
          disabled={!slice.value}
          onChange={(event) => {
            const chosen = presets().find((one) => one.key === event.currentTarget.value);
            if (chosen) apply(chosen);
            event.currentTarget.blur();
          }}
        >
          <option value="" disabled>
            {current ? "" : "Window …"}
          </option>
          {presets().map((one) => (
            <option key={one.key} value={one.key}>
              {one.name} ({one.key})
            </option>
          ))}
        </select>
      </label>
      <button
        type="button"
        class="quiet"
        aria-pressed={boxesShown.value}
        title="Show or hide boxes (B)"
        onClick={() => {
          boxesShown.value = !boxesShown.value;
        }}
      >
        Boxes
      </button>
      <button type="button" class="quiet" title="Fit to window (F)" onClick={() => viewer.value?.fit()}>
        Fit
      </button>
      <button
        type="button"
        class="quiet draw"
        title="Draw a missed finding (D)"
        disabled={!marking.value || !slice.value}
        onClick={() => draw(null)}
      >
        Draw
      </button>
    </div>
  );
}

function SeriesChoice() {
  if (allSeries.value.length === 0) return <span class="series" />;
  return (
    <label class="series">
      <span class="hidden">Series</span>
      <select
        value={seriesUid.value ?? ""}
        onChange={(event) => {
          void openSeries(event.currentTarget.value, null);
          event.currentTarget.blur();
        }}
      >
        {allSeries.value.map((one) => (
          <option key={one.uid} value={one.uid}>
            {seriesText(one)}
          </option>
        ))}
      </select>
    </label>
  );
}

function seriesText(one: Series): string {
  const parts = [one.modality, one.description, one.instances && count(one.instances, "object")];
  const screened = review.value?.models.some((model) => model.series?.includes(one.uid));
  return parts.filter(Boolean).join(" · ") + (screened ? "" : " · not screened");
}

function Corners() {
  const one = slice.value;
  const now = view.value;
  const who = patient.value;
  if (!one || !now) return null;
  return (
    <div class="corners" aria-hidden="true">
      {who && (
        <p class="nw">
          <strong>{who.name || "no name"}</strong>
          <span>{[who.id, who.sex, who.birth && `born ${who.birth}`].filter(Boolean).join(" · ")}</span>
          <span>{[who.studyDate, who.description].filter(Boolean).join(" · ")}</span>
        </p>
      )}
      <p class="se">
        <strong>
          {now.index + 1} / {slices.value.length}
        </strong>
        {one.position !== null && <span>{signed(one.position, 1)} mm</span>}
      </p>
      <p class="sw">
        {now.window && (
          <span>
            C {signed(now.window.centre)} W {signed(now.window.width)}
          </span>
        )}
        <span>zoom {now.zoom.toFixed(1)}×</span>
      </p>
      {!loaded.value.has(one.imageId) && <p class="ne dim">loading</p>}
    </div>
  );
}

/** What stands in the way of an image. */
function Over() {
  if (!openId.value) {
    return (
      <div class="over welcome">
        <h1>Choose a study</h1>
        <p>
          Press <kbd>Q</kbd> for the queue and <kbd>Enter</kbd> to open, or <kbd>X</kbd> for the
          most urgent study. <kbd>?</kbd> shows all keys.
        </p>
        <p class="dim">
          Here are only the studies that were flagged. No flag is not normal: it says that no model
          met a rule in what it was shown.
        </p>
      </div>
    );
  }
  const problem = trouble.value ?? imageTrouble.value;
  if (problem) {
    return (
      <div class="over" role="alert">
        <h1>{problem.message}</h1>
        <p>{problem.remedy}</p>
        <button type="button" onClick={retry}>
          Try again
        </button>
      </div>
    );
  }
  if (!view.value) {
    return (
      <div class="over" aria-busy="true">
        <p class="dim" data-now={clock.value}>
          {detail.value ? "Loading the first image …" : "Opening the study …"}
        </p>
      </div>
    );
  }
  return null;
}

function Drawing() {
  const edit = editing.value;
  if (!edit) return null;
  return (
    <div class="drawing-bar" role="status">
      <strong>{edit.target ? "Box on this slice" : "A missed finding"}</strong>
      <span>
        drag with the mouse, or <kbd>↑↓←→</kbd> move, <kbd>Shift</kbd> resizes, <kbd>Enter</kbd>{" "}
        keeps, <kbd>Esc</kbd> leaves it
      </span>
    </div>
  );
}

