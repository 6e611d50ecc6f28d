// Peak signal-to-noise ratio of byte images.

/** PSNR in dB of two equally long byte arrays, peak 255; Infinity when they are equal. */
export function psnr(a: Uint8Array, b: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; ++i) sum += (a[i]! - b[i]!) ** 2;
  return 10 * Math.log10((255 * 255 * a.length) / sum);
}
