// Counter-based random numbers: the streams of zotutor.streams, word for word.
//
// A word has 64 bits, here a pair (hi, lo) of 32-bit integers: BigInt is fifty times slower.

const word = { hi: 0, lo: 0 }; // the result of each of these functions: nothing is allocated

/** word = word 1 + word 2 modulo 2^64. */
function add(hi1, lo1, hi2, lo2) {
  const lo = lo1 + lo2;
  word.hi = (hi1 + hi2 + (lo > 0xffffffff ? 1 : 0)) >>> 0;
  word.lo = lo >>> 0;
}

/** word = word 1 times word 2 modulo 2^64, from the products of 16-bit digits. */
function multiply(hi1, lo1, hi2, lo2) {
  const a0 = lo1 & 0xffff, a1 = lo1 >>> 16, b0 = lo2 & 0xffff, b1 = lo2 >>> 16;
  const low = a0 * b0, cross1 = a0 * b1, cross2 = a1 * b0;
  const middle = (low >>> 16) + (cross1 & 0xffff) + (cross2 & 0xffff);
  const carry = (cross1 >>> 16) + (cross2 >>> 16) + (middle >>> 16);
  word.hi = (a1 * b1 + carry + Math.imul(hi1, lo2) + Math.imul(lo1, hi2)) >>> 0;
  word.lo = ((middle << 16) | (low & 0xffff)) >>> 0;
}

/** word = mix(z), SplitMix64's bijection. */
function mix(hi, lo) {
  multiply(hi ^ (hi >>> 30), lo ^ ((lo >>> 30) | (hi << 2)), 0xbf58476d, 0x1ce4e5b9);
  ({ hi, lo } = word);
  multiply(hi ^ (hi >>> 27), lo ^ ((lo >>> 27) | (hi << 5)), 0x94d049bb, 0x133111eb);
  ({ hi, lo } = word);
  word.lo = (lo ^ ((lo >>> 31) | (hi << 1))) >>> 0;
  word.hi = (hi ^ (hi >>> 31)) >>> 0;
}

/** word = mix(z + GOLDEN). */
function advance(hi, lo) {
  add(hi, lo, 0x9e3779b9, 0x7f4a7c15);
  mix(word.hi, word.lo);
}

/** The stream of integers (seed, step, p, parameter, ...), each from 0 to 2^53. */
function stream(...parts) {
  let z = { hi: 0, lo: 0 };
  for (const part of parts) {
    advance(Math.floor(part / 4294967296), part >>> 0);
    const { hi, lo } = word;
    add(z.hi, z.lo, 0x9e3779b9, 0x7f4a7c15);
    mix(word.hi ^ hi, word.lo ^ lo);
    z = { ...word };
  }
  advance(z.hi, z.lo);
  const key = { ...word };
  add(z.hi, z.lo, 0x9e3779b9, 0x7f4a7c15);
  advance(word.hi, word.lo);
  return { key, gamma: { hi: word.hi, lo: (word.lo | 1) >>> 0 } };
}

/** word = word n of a stream, mix(key + n gamma), n below 2^32. */
function wordAt({ key, gamma }, n) {
  multiply(gamma.hi, gamma.lo, 0, n);
  add(word.hi, word.lo, key.hi, key.lo);
  mix(word.hi, word.lo);
}

/** The first `count` random signs: the bits of the words, lowest first. */
function signs(source, count) {
  const out = new Float64Array(count);
  for (let n = 0; n < count; n += 64) {
    wordAt(source, n / 64);
    const { hi, lo } = word;
    for (let bit = 0; bit < 64 && n + bit < count; bit++) {
      out[n + bit] = ((bit < 32 ? lo >>> bit : hi >>> (bit - 32)) & 1) * 2 - 1;
    }
  }
  return out;
}

/** The first `count` standard normals, by the transform of Box and Muller: two per word. */
function normals(source, count) {
  const out = new Float64Array(count);
  for (let n = 0; n < count; n += 2) {
    wordAt(source, n / 2);
    const radius = Math.sqrt(-2 * Math.log((word.hi + 0.5) / 4294967296));
    const angle = word.lo * (2 ** -32 * 2 * Math.PI);
    out[n] = radius * Math.cos(angle);
    if (n + 1 < count) out[n + 1] = radius * Math.sin(angle);
  }
  return out;
}

/** The first `count` numbers uniform on [0, 1), of 32 bits: two per word. */
function uniforms(source, count) {
  const out = new Float64Array(count);
  for (let n = 0; n < count; n += 2) {
    wordAt(source, n / 2);
    out[n] = word.lo / 4294967296;
    if (n + 1 < count) out[n + 1] = word.hi / 4294967296;
  }
  return out;
}

/** Parameter i of the direction u_p of (seed, step), as the family of this name draws it. */
function direction(family, count, { seed = 0, step = 0, p = 0, i = 0 } = {}) {
  const source = stream(seed, step, p, i);
  if (family === "Rademacher") return signs(source, count);
  const drawn = normals(source, count);
  if (family === "Gaussian") return drawn;
  const density = densityOf(family);
  const kept = uniforms(stream(seed, step, p, i, 1), count);
  return drawn.map((n, k) => (kept[k] < density ? n : 0) / Math.sqrt(density));
}

/** The density in a name such as "Sparse(0.1)". */
function densityOf(family) {
  return Number(/^Sparse\((.*)\)$/.exec(family)[1]);
}

/** kappa = E[u_i^4] of the family of this name. */
function kurtosis(family) {
  return { Rademacher: 1, Gaussian: 3 }[family] ?? 3 / densityOf(family);
}
