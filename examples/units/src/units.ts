/** Units by quantity, each with how many of the first one it is worth. */
export const quantities: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  length: { m: 1, km: 1000, cm: 0.01, mi: 1609.344, yd: 0.9144, ft: 0.3048, in: 0.0254, nmi: 1852 },
  mass: { kg: 1, g: 0.001, t: 1000, lb: 0.45359237, oz: 0.028349523125 },
  volume: { l: 1, ml: 0.001, gal: 3.785411784, pt: 0.473176473, cup: 0.2365882365 },
  speed: { "m/s": 1, "km/h": 1 / 3.6, mph: 0.44704, kn: 1852 / 3600 },
};

/** Converts, rounded to ten digits, or says why it cannot. */
export function convert(value: number, from: string, to: string): number | string {
  if (!Number.isFinite(value)) return "the value is not a number";
  const of = quantityOf(from);
  const into = quantityOf(to);
  if (of === undefined) return `there is no unit ${JSON.stringify(from)}`;
  if (into === undefined) return `there is no unit ${JSON.stringify(to)}`;
  if (of !== into) return `${from} measures ${of}, and ${to} measures ${into}`;
  return Number(((value * quantities[of]![from]!) / quantities[of]![to]!).toPrecision(10));
}

function quantityOf(unit: string): string | undefined {
  return Object.keys(quantities).find((q) => Object.hasOwn(quantities[q]!, unit));
}
