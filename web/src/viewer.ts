/** One Cornerstone viewport: the stack, its window, pan and zoom. */

import {
  cache,
  Enums,
  getRenderingCapabilities,
  imageLoader,
  init as initCore,
  RenderingEngine,
  setUseCPURendering,
  type StackViewport,
  utilities,
} from "@cornerstonejs/core";
import { init as initLoader, wadors } from "@cornerstonejs/dicom-image-loader";
import {
  addTool,
  Enums as ToolEnums,
  init as initTools,
  PanTool,
  ToolGroupManager,
  WindowLevelTool,
  ZoomTool,
} from "@cornerstonejs/tools";

import { Prefetch } from "./prefetch";
import type { Slice } from "./stack";

const ENGINE = "review";
const VIEWPORT = "stack";
const CACHE_BYTES = 1.5 * 2 ** 30;
const ZOOM_STEP = 1.2;
const ZOOM_BOUNDS = [0.1, 20] as const;

export type Tool = "window" | "pan" | "zoom";
const TOOLS = { window: WindowLevelTool, pan: PanTool, zoom: ZoomTool };

/** Centre and width in modality units. */
export interface Window {
  centre: number;
  width: number;
}

/** Where the frame's pixel edges lie on the canvas: x = a·u + c·v + e, y = b·u + d·v + f. */
export type Placement = [a: number, b: number, c: number, d: number, e: number, f: number];

type Range = { lower: number; upper: number };

/** Points of the canvas for a pixel of the frame. */
function scaleOf([a, b]: Placement): number {
  return Math.hypot(a, b);
}

export interface View {
  /** What is drawn, and where it is in the stack. */
  slice: Slice;
  index: number;
  window: Window | null;
  zoom: number;
  placement: Placement;
}

let ready: Promise<void> | null = null;

/** Start the libraries, once. */
function start(): Promise<void> {
  ready ??= (async () => {
    await initCore();
    const capabilities = getRenderingCapabilities();
    // A software rasterizer draws a slice as a textured plane, several times slower than the
    // library's own path for machines without a GPU.
    if (!capabilities.webgl || capabilities.softwareRasterizer) setUseCPURendering(true);
    cache.setMaxCacheSize(CACHE_BYTES);
    initLoader({
      maxWebWorkers: Math.max(1, Math.min(4, Math.floor(navigator.hardwareConcurrency / 2))),
      // One frame, as it is: no multipart message to search through for its end.
      beforeSend: (_xhr, _imageId, headers) => ({ ...headers, Accept: "application/octet-stream" }),
    });
    initTools();
    for (const tool of Object.values(TOOLS)) addTool(tool);
  })();
  return ready;
}

export class Viewer {
  private slices: readonly Slice[] = [];
  private imageIds: string[] = [];
  private target = 0;
  private moving: Promise<void> | null = null;
  /** Kept when an image comes, or another slice is gone to. */
  private news = Promise.withResolvers<void>();
  /** The stack is set: before, the viewport takes no other index. */
  private settled = false;
  /** Stacks are set one after the other. */
  private stacking: Promise<void> = Promise.resolve();
  /** The stack has the window that it opens with. */
  private windowed = false;
  private initialWindow: Window | null = null;
  /** Of the values that are drawn from black to white. */
  private range: Range | null = null;
  private readonly prefetch = new Prefetch((imageId) => this.load(imageId, "Prefetch"));
  private readonly observer: ResizeObserver;

  /** Called after each painted image. */
  onPaint: (view: View) => void = () => undefined;
  /** Called when an image could not be had. */
  onError: (slice: Slice) => void = () => undefined;
  /** Called with the image ids that are at hand. */
  onLoaded: (imageId: string) => void = () => undefined;

  private constructor(
    element: HTMLDivElement,
    private readonly engine: RenderingEngine,
    private readonly viewport: StackViewport,
  ) {
    element.addEventListener(Enums.Events.IMAGE_RENDERED, () => this.painted());
    element.addEventListener(Enums.Events.VOI_MODIFIED, (event) => {
      this.range = (event as CustomEvent<{ range: Range }>).detail.range;
    });
    this.observer = new ResizeObserver(() => this.engine.resize(true, true));
    this.observer.observe(element);
  }

  static async create(element: HTMLDivElement): Promise<Viewer> {
    await start();
    const engine = new RenderingEngine(ENGINE);
    engine.enableElement({
      viewportId: VIEWPORT,
      type: Enums.ViewportType.STACK,
      element,
      defaultOptions: { background: [0, 0, 0] },
    });
    const group = ToolGroupManager.createToolGroup(ENGINE);
    for (const tool of Object.values(TOOLS)) group?.addTool(tool.toolName);
    group?.addViewport(VIEWPORT, ENGINE);
    const viewer = new Viewer(element, engine, engine.getViewport(VIEWPORT) as StackViewport);
    viewer.useTool("window");
    return viewer;
  }

  /** What the primary button does; the auxiliary one pans and the secondary one zooms. */
  useTool(tool: Tool | null): void {
    const { Primary, Auxiliary, Secondary } = ToolEnums.MouseBindings;
    const group = ToolGroupManager.getToolGroup(ENGINE);
    const buttons: Record<Tool, number[]> = { window: [], pan: [Auxiliary], zoom: [Secondary] };
    if (tool) buttons[tool].unshift(Primary);
    for (const [name, one] of Object.entries(TOOLS)) {
      const bindings = buttons[name as Tool].map((mouseButton) => ({ mouseButton }));
      group?.setToolPassive(one.toolName, { removeAllBindings: true });
      if (bindings.length) group?.setToolActive(one.toolName, { bindings });
    }
  }

  /**
   * Show a stack from one of its slices. The same slices and more of them, as when the rest of a
   * series becomes known, keep window, pan and zoom.
   */
  async show(slices: readonly Slice[], index: number, fallback: Window | null): Promise<void> {
    this.slices = slices;
    this.imageIds = slices.map((one) => one.imageId);
    this.target = index;
    this.settled = false;
    this.prefetch.stop();
    for (const one of slices) wadors.metaDataManager.add(one.imageId, one.metadata as never);
    // One after the other: an image that comes late must not be drawn into a later stack.
    const shown = this.stacking.then(() => this.stack(slices, index, fallback));
    this.stacking = shown.catch(() => undefined);
    await shown;
  }

  private async stack(
    slices: readonly Slice[],
    index: number,
    fallback: Window | null,
  ): Promise<void> {
    await this.moving;
    if (this.slices !== slices) return;
    const { range } = this;
    const same = this.windowed && this.imageIds.includes(this.drawn());
    const kept = same ? this.viewport.getCamera() : null;
    const inverted = this.viewport.getProperties().invert;
    this.windowed = false;
    if (!kept) this.range = null;
    await this.viewport.setStack([...this.imageIds], index);
    if (kept && range) {
      this.viewport.setProperties({ voiRange: range, invert: inverted });
      const { focalPoint, position, parallelScale } = kept;
      this.viewport.setCamera({ focalPoint, position, parallelScale });
    } else {
      this.initialWindow = fallback ?? this.window();
      // Else each image would come with a window of its own, and scrolling would flicker.
      this.resetWindow();
    }
    this.windowed = true;
    if (this.slices !== slices) return;
    this.settled = true;
    this.viewport.render();
    this.prefetch.around(this.imageIds, this.target, 0);
    this.move();
  }

  /** The image that is drawn. */
  private drawn(): string {
    return this.viewport.getCornerstoneImage()?.imageId ?? "";
  }

  get index(): number {
    return this.target;
  }

  /**
   * Go to a slice. Only the last request counts; while its image is on its way, what is at hand
   * between there and here is shown, so that fast scrolling never stands still.
   */
  goTo(index: number): void {
    const wanted = Math.max(0, Math.min(this.slices.length - 1, Math.round(index)));
    if (wanted === this.target || this.slices.length === 0) return;
    const direction = wanted < this.target ? -1 : 1;
    this.target = wanted;
    this.prefetch.around(this.imageIds, wanted, direction);
    this.tell();
    this.move();
  }

  private move(): void {
    if (!this.settled) return;
    this.moving ??= this.follow().finally(() => {
      this.moving = null;
    });
  }

  private async follow(): Promise<void> {
    const { slices } = this;
    let at = this.viewport.getCurrentImageIdIndex();
    while (at !== this.target && this.slices === slices) {
      const { target } = this;
      const slice = slices[target];
      if (!slice) return;
      // Taken before what is at hand is looked at, so that nothing that comes meanwhile is missed.
      const news = this.news.promise;
      const coming = cache.getImage(slice.imageId) ? null : this.load(slice.imageId, "Interaction");
      // Whoever does not wait for it does not hear that it failed.
      coming?.catch(() => undefined);
      const next = coming ? this.nearest(at, target) : target;
      if (next !== at) await this.viewport.setImageIdIndex(next);
      if (next !== at) this.keepWindow();
      at = next;
      // A painted frame between two slices: each one that is gone to is seen.
      await new Promise(requestAnimationFrame);
      if (!coming || this.target !== target) continue;
      try {
        await Promise.race([coming, news]);
      } catch {
        if (this.slices === slices) this.onError(slice);
        if (this.target === target) return;
      }
    }
  }

  private tell(): void {
    this.news.resolve();
    this.news = Promise.withResolvers();
  }

  /** Of the images at hand from one index to another, the one nearest to the other. */
  private nearest(from: number, to: number): number {
    const step = from < to ? -1 : 1;
    for (let n = to; n !== from; n += step) {
      if (cache.getImage(this.imageIds[n] ?? "")) return n;
    }
    return from;
  }

  setWindow({ centre, width }: Window): void {
    this.range = utilities.windowLevel.toLowHighRange(Math.max(2, width), centre);
    this.viewport.setProperties({ voiRange: this.range });
    this.viewport.render();
  }

  /** Change centre and width by parts of the width. */
  adjustWindow(centre: number, width: number): void {
    const now = this.window();
    if (now) {
      const step = Math.max(now.width, 1);
      this.setWindow({ centre: now.centre + centre * step, width: now.width * (1 + width) });
    }
  }

  /** The window that the stack was opened with. */
  resetWindow(): void {
    if (this.initialWindow) this.setWindow(this.initialWindow);
  }

  /** From the least to the greatest value of the slice. */
  fullWindow(): void {
    const image = this.viewport.getCornerstoneImage();
    if (!image) return;
    const [low, high] = [image.minPixelValue, image.maxPixelValue];
    this.setWindow({ centre: (low + high) / 2, width: high - low });
  }

  /** A new image tells a window of its own, which it is not drawn with. */
  private keepWindow(): void {
    const told = this.viewport.getProperties().voiRange;
    const { range } = this;
    if (!range || (told?.lower === range.lower && told.upper === range.upper)) return;
    this.viewport.setProperties({ voiRange: range }, true);
  }

  private window(): Window | null {
    const range = this.range ?? this.viewport.getProperties().voiRange;
    if (!range) return null;
    const { windowCenter, windowWidth } = utilities.windowLevel.toWindowLevel(
      range.lower,
      range.upper,
    );
    return { centre: windowCenter, width: windowWidth };
  }

  invert(): void {
    this.viewport.setProperties({ invert: !this.viewport.getProperties().invert });
    this.viewport.render();
  }

  zoom(steps: number): void {
    const scale = this.viewport.getCamera().parallelScale;
    const now = this.scale();
    if (!scale || !now) return;
    const wanted = Math.max(ZOOM_BOUNDS[0], Math.min(ZOOM_BOUNDS[1], now * ZOOM_STEP ** steps));
    this.viewport.setCamera({ parallelScale: (scale * now) / wanted });
    this.viewport.render();
  }

  /** Move the image, CSS pixels. */
  pan(x: number, y: number): void {
    const { focalPoint, position } = this.viewport.getCamera();
    if (!focalPoint || !position) return;
    const from = this.viewport.canvasToWorld([0, 0]);
    const to = this.viewport.canvasToWorld([x, y]);
    const moved = (point: readonly number[]) =>
      point.map((one, n) => one - (to[n] ?? 0) + (from[n] ?? 0)) as [number, number, number];
    this.viewport.setCamera({ focalPoint: moved(focalPoint), position: moved(position) });
    this.viewport.render();
  }

  /** The whole image in the viewport. */
  fit(): void {
    this.viewport.resetCamera();
    this.viewport.render();
  }

  /** Pixel edges of the frame at a point of the canvas. */
  at(placement: Placement, x: number, y: number): [number, number] {
    const [a, b, c, d, e, f] = placement;
    const determinant = a * d - b * c;
    return [
      (d * (x - e) - c * (y - f)) / determinant,
      (a * (y - f) - b * (x - e)) / determinant,
    ];
  }

  private load(imageId: string, urgency: "Prefetch" | "Interaction"): Promise<unknown> {
    const options = {
      ...this.viewport.getLoaderImageOptions(imageId),
      requestType: Enums.RequestType[urgency],
      priority: 0,
      // To the worker that decodes, instead of a copy.
      transferPixelData: true,
    };
    return imageLoader
      .loadAndCacheImage(imageId, options)
      .then(() => {
        this.onLoaded(imageId);
        this.tell();
      });
  }

  private painted(): void {
    // Told by the image itself: boxes must never lie on another one than they are of.
    const index = this.imageIds.indexOf(this.drawn());
    const slice = this.slices[index];
    const placement = this.placement();
    if (!slice || !placement) return;
    this.onLoaded(slice.imageId);
    this.onPaint({ slice, index, window: this.window(), zoom: scaleOf(placement), placement });
  }

  private scale(): number | null {
    const placement = this.placement();
    return placement && scaleOf(placement);
  }

  private placement(): Placement | null {
    const toWorld = this.viewport.getImageData()?.imageData.indexToWorld;
    if (!toWorld) return null;
    // Index coordinates are those of pixel centres.
    const canvas = (u: number, v: number) =>
      this.viewport.worldToCanvas(toWorld([u - 0.5, v - 0.5, 0]) as never);
    const [e, f] = canvas(0, 0);
    const [ux, uy] = canvas(1, 0);
    const [vx, vy] = canvas(0, 1);
    const placement: Placement = [ux - e, uy - f, vx - e, vy - f, e, f];
    return placement.every(Number.isFinite) ? placement : null;
  }
}
