/** Windows that readers ask for, centre and width in HU. */

import { slices, view, viewer } from "./state";
import type { Window } from "./viewer";

export interface Preset {
  key: string;
  name: string;
  /** `null`: as the file says; "full": all values of the slice. */
  window: Window | null | "full";
}

const CT: readonly Preset[] = [
  { key: "1", name: "Soft tissue", window: { centre: 40, width: 400 } },
  { key: "2", name: "Lung", window: { centre: -600, width: 1500 } },
  { key: "3", name: "Bone", window: { centre: 400, width: 1800 } },
  { key: "4", name: "Brain", window: { centre: 40, width: 80 } },
  { key: "5", name: "Liver", window: { centre: 60, width: 160 } },
];
const ANY: readonly Preset[] = [
  { key: "0", name: "As opened", window: null },
  { key: "9", name: "Full range", window: "full" },
];

/** Those that fit the series: values of other modalities have no common scale. */
export function presets(): readonly Preset[] {
  const modality = slices.value[0]?.metadata["00080060"]?.Value?.[0];
  return modality === "CT" ? [...CT, ...ANY] : ANY;
}

export function apply(preset: Preset): void {
  if (preset.window === null) viewer.value?.resetWindow();
  else if (preset.window === "full") viewer.value?.fullWindow();
  else viewer.value?.setWindow(preset.window);
}

/** The preset that is in use; `undefined` where the reader set the window. */
export function inUse(): Preset | undefined {
  const now = view.value?.window;
  return presets().find(
    ({ window }) =>
      window !== null &&
      window !== "full" &&
      now &&
      Math.abs(window.centre - now.centre) < 1 &&
      Math.abs(window.width - now.width) < 1,
  );
}
