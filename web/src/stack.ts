/** From DICOM JSON to the stack of images that the viewer scrolls through. */

import { DICOMWEB } from "./api";
import type { DicomJson } from "./records";

const TRANSFER_SYNTAX = "00083002";
const SOP_INSTANCE = "00080018";
const MODALITY = "00080060";
const SERIES_DESCRIPTION = "0008103E";
const SERIES_NUMBER = "00200011";
const SERIES_INSTANCE = "0020000E";
const INSTANCE_NUMBER = "00200013";
const POSITION = "00200032";
const ORIENTATION = "00200037";
const FRAMES = "00280008";
const ROWS = "00280010";
const COLUMNS = "00280011";
const SAMPLES = "00280002";
const PHOTOMETRIC = "00280004";
const PLANAR = "00280006";
const BITS_ALLOCATED = "00280100";
const INSTANCES_IN_SERIES = "00201209";
const PER_FRAME = "52009230";
const PLANE_POSITION = "00209113";

/** Transfer syntaxes whose frames the server sends as they are stored. */
const NATIVE = new Set([
  "1.2.840.10008.1.2",
  "1.2.840.10008.1.2.1",
  "1.2.840.10008.1.2.2",
  "1.2.840.10008.1.2.1.99",
]);

/** One frame of the stack. */
export interface Slice {
  imageId: string;
  sop: string;
  /** From 1. */
  frame: number;
  rows: number;
  columns: number;
  instanceNumber: number | null;
  /** Along the slice normal, mm; `null` without geometry. */
  position: number | null;
  metadata: DicomJson;
}

export interface Series {
  uid: string;
  modality: string;
  description: string;
  number: number | null;
  instances: number | null;
}

function first(dataset: DicomJson, tag: string): unknown {
  return dataset[tag]?.Value?.[0];
}

function text(dataset: DicomJson, tag: string): string {
  const value = first(dataset, tag);
  if (typeof value === "string") return value;
  // Names of people come by alphabet (PS3.18 section F.2.2).
  const name = (value as { Alphabetic?: unknown } | undefined)?.Alphabetic;
  return typeof name === "string" ? name : "";
}

function number(dataset: DicomJson, tag: string): number | null {
  const value = first(dataset, tag);
  return typeof value === "number" ? value : null;
}

function numbers(dataset: DicomJson, tag: string): number[] {
  return (dataset[tag]?.Value ?? []).filter((one): one is number => typeof one === "number");
}

/** A series as QIDO-RS answers it. */
export function series(found: DicomJson): Series {
  return {
    uid: text(found, SERIES_INSTANCE),
    modality: text(found, MODALITY),
    description: text(found, SERIES_DESCRIPTION),
    number: number(found, SERIES_NUMBER),
    instances: number(found, INSTANCES_IN_SERIES),
  };
}

/** Who the study is of, as the viewer shows it. */
export interface Patient {
  name: string;
  id: string;
  birth: string;
  sex: string;
  studyDate: string;
  description: string;
}

export function patient(metadata: DicomJson): Patient {
  return {
    name: text(metadata, "00100010").replaceAll("^", " ").trim(),
    id: text(metadata, "00100020"),
    birth: date(text(metadata, "00100030")),
    sex: text(metadata, "00100040"),
    studyDate: date(text(metadata, "00080020")),
    description: text(metadata, "00081030"),
  };
}

function date(da: string): string {
  return /^\d{8}$/.test(da) ? `${da.slice(0, 4)}-${da.slice(4, 6)}-${da.slice(6)}` : da;
}

/**
 * The frames of a series in the order of their positions along the slice normal; without geometry,
 * by instance number. Objects without pixels are left out.
 */
export function slices(study: string, seriesUid: string, objects: DicomJson[]): Slice[] {
  const frames = objects.flatMap((one) => framesOf(study, seriesUid, one));
  const placed = frames.length > 0 && frames.every((one) => one.position !== null);
  return frames.sort(
    (a, b) =>
      (placed ? (a.position ?? 0) - (b.position ?? 0) : 0) ||
      (a.instanceNumber ?? 0) - (b.instanceNumber ?? 0) ||
      a.frame - b.frame ||
      (a.sop < b.sop ? -1 : 1),
  );
}

function framesOf(study: string, seriesUid: string, metadata: DicomJson): Slice[] {
  const rows = number(metadata, ROWS);
  const columns = number(metadata, COLUMNS);
  const sop = text(metadata, SOP_INSTANCE);
  if (!rows || !columns || !sop) return [];
  const count = Math.max(1, Number(first(metadata, FRAMES) ?? 1) || 1);
  const asSent = decodedColour(metadata);
  const at = `wadors:${location.origin}${DICOMWEB}/studies/${study}/series/${seriesUid}`;
  return Array.from({ length: count }, (_, index) => ({
    imageId: `${at}/instances/${sop}/frames/${index + 1}`,
    sop,
    frame: index + 1,
    rows,
    columns,
    instanceNumber: number(metadata, INSTANCE_NUMBER),
    position: alongNormal(metadata, count > 1 ? index : null),
    metadata: asSent,
  }));
}

/**
 * The server decodes: colour of 8 bits that was compressed comes as RGB by pixel, which the
 * object's own attributes do not say.
 */
function decodedColour(metadata: DicomJson): DicomJson {
  const syntax = text(metadata, TRANSFER_SYNTAX);
  const decoded =
    syntax !== "" &&
    !NATIVE.has(syntax) &&
    number(metadata, SAMPLES) === 3 &&
    number(metadata, BITS_ALLOCATED) === 8;
  if (!decoded) return metadata;
  return {
    ...metadata,
    [PHOTOMETRIC]: { vr: "CS", Value: ["RGB"] },
    [PLANAR]: { vr: "US", Value: [0] },
  };
}

function alongNormal(metadata: DicomJson, frame: number | null): number | null {
  let position = numbers(metadata, POSITION);
  let orientation = numbers(metadata, ORIENTATION);
  if (frame !== null) {
    const groups = metadata[PER_FRAME]?.Value?.[frame] as DicomJson | undefined;
    const plane = groups?.[PLANE_POSITION]?.Value?.[0] as DicomJson | undefined;
    if (!plane) return null;
    position = numbers(plane, POSITION);
    if (orientation.length !== 6) orientation = frameOrientation(metadata, groups);
  }
  if (position.length !== 3 || orientation.length !== 6) return null;
  const [a, b, c, d, e, f] = orientation as [number, number, number, number, number, number];
  const [x, y, z] = position as [number, number, number];
  return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d);
}

function frameOrientation(metadata: DicomJson, own: DicomJson | undefined): number[] {
  const shared = metadata["52009229"]?.Value?.[0] as DicomJson | undefined;
  for (const group of [own, shared]) {
    const plane = group?.["00209116"]?.Value?.[0] as DicomJson | undefined;
    if (plane) return numbers(plane, ORIENTATION);
  }
  return [];
}
