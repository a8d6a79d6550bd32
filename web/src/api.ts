/** Requests to the app's doors. */

import type { Decision, DicomJson, Item, ItemDetail, Me } from "./records";

const API = "/api";
export const DICOMWEB = `${API}/dicomweb`;

/** A door's refusal: `{"error": {"code", "message", "remedy"}}`, and the item where it is sent. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly remedy: string,
    readonly item?: Item,
  ) {
    super(message);
  }
}

/** The request did not come through: no connection, or nothing behind it that answers. */
export class Unreachable extends Error {}

const UNREACHABLE = new Set([502, 504]);

async function send(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(`${API}/${path}`, { cache: "no-store", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Unreachable("the server cannot be reached");
  }
  if (UNREACHABLE.has(response.status)) throw new Unreachable("the server does not answer");
  if (response.ok || response.status === 304) return response;
  throw await refusal(response);
}

async function refusal(response: Response): Promise<Refusal> {
  let body: { error?: { code?: string; message?: string; remedy?: string }; item?: Item } = {};
  try {
    body = await response.json();
  } catch {
    // A proxy's page, or none: the status says what there is to say.
  }
  const { code, message, remedy } = body.error ?? {};
  return new Refusal(
    response.status,
    code ?? "no-answer",
    message ?? `the server answered ${response.status}`,
    remedy ?? "try again; if it stays, tell whoever runs the server",
    body.item,
  );
}

export async function me(): Promise<Me> {
  return (await send("me")).json();
}

export interface Listing {
  items: Item[];
  total: number;
  /** The server's clock, ISO 8601. */
  now: string;
  etag: string | null;
}

/** The worklist in queue order; `null` when it is as it was at `etag`. */
export async function worklist(state: string, etag: string | null): Promise<Listing | null> {
  const headers: Record<string, string> = etag ? { "If-None-Match": etag } : {};
  const response = await send(`worklist?state=${state}`, { headers });
  if (response.status === 304) return null;
  const body = await response.json();
  return { items: body.items, total: body.total, now: body.now, etag: response.headers.get("ETag") };
}

export async function item(id: string, signal?: AbortSignal): Promise<ItemDetail> {
  return (await send(`worklist/${id}`, { signal })).json();
}

export async function act(id: string, action: "claim" | "release"): Promise<Item> {
  return (await send(`worklist/${id}/${action}`, { method: "POST" })).json();
}

export async function decide(id: string, decision: Decision): Promise<Item> {
  const response = await send(`worklist/${id}/decision`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(decision),
  });
  return response.json();
}

/** Correct a decided item: a new entry beside the decision, which stays. */
export async function correct(id: string, decision: Decision, reason: string): Promise<Item> {
  const response = await send(`worklist/${id}/correction`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...decision, reason }),
  });
  return (await response.json()).item;
}

async function dicomJson(path: string, signal?: AbortSignal): Promise<DicomJson[]> {
  const headers = { Accept: "application/dicom+json" };
  const response = await send(`dicomweb/${path}`, { headers, signal });
  return response.status === 204 ? [] : response.json();
}

/** QIDO-RS: the series of a study. */
export function seriesOf(study: string, signal?: AbortSignal): Promise<DicomJson[]> {
  return dicomJson(`studies/${study}/series?limit=1000`, signal);
}

/** WADO-RS metadata of a series, or of one instance of it. */
export function metadata(
  study: string,
  series: string,
  instance: string | null,
  signal?: AbortSignal,
): Promise<DicomJson[]> {
  const of = instance ? `/instances/${instance}` : "";
  return dicomJson(`studies/${study}/series/${series}${of}/metadata`, signal);
}
