/** Loads the images around the one that is looked at, the nearest ahead first. */

/** A browser opens six connections to a server: one stays for what is gone to, one for the queue. */
const AT_ONCE = 4;
/** Of nine images, eight are ahead in the direction of scrolling: those behind were mostly seen. */
const AHEAD = 8;

/** Which way is scrolled; 0: not yet. */
export type Direction = 1 | -1 | 0;

/** Indices around one, without it: in the direction first, then behind, outwards. */
export function* outwards(count: number, index: number, direction: Direction): Generator<number> {
  const step = direction || 1;
  const most = direction ? AHEAD : 1;
  let ahead = index + step;
  let behind = index - step;
  const inside = (one: number) => one >= 0 && one < count;
  while (inside(ahead) || inside(behind)) {
    for (let n = 0; n < most && inside(ahead); n++, ahead += step) yield ahead;
    if (inside(behind)) {
      yield behind;
      behind -= step;
    }
  }
}

export class Prefetch {
  private readonly asked = new Set<string>();
  private queue: Iterator<string> | null = null;
  private running = 0;
  private generation = 0;

  constructor(private readonly load: (imageId: string) => Promise<unknown>) {}

  /** Go on from another place; what is on its way comes all the same. */
  around(imageIds: readonly string[], index: number, direction: Direction): void {
    this.queue = this.left(imageIds, index, direction);
    this.pump();
  }

  stop(): void {
    this.queue = null;
    this.generation += 1;
    this.asked.clear();
    this.running = 0;
  }

  private *left(imageIds: readonly string[], index: number, direction: Direction): Generator<string> {
    for (const one of outwards(imageIds.length, index, direction)) {
      const imageId = imageIds[one];
      if (imageId !== undefined && !this.asked.has(imageId)) yield imageId;
    }
  }

  private pump(): void {
    while (this.queue && this.running < AT_ONCE) {
      const next = this.queue.next();
      if (next.done) return;
      const imageId: string = next.value;
      const generation = this.generation;
      this.asked.add(imageId);
      this.running += 1;
      this.load(imageId)
        // It is asked for again when it is gone to, and the reader is told then.
        .catch(() => this.asked.delete(imageId))
        .finally(() => {
          if (generation !== this.generation) return;
          this.running -= 1;
          this.pump();
        });
    }
  }
}
