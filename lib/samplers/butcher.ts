// Explicit Runge-Kutta methods as data. Source: Hairer, Norsett, Wanner 1993, "Solving ordinary
// differential equations I", chapter II; names as rtqichen/torchdiffeq.

export interface ButcherTable {
  order: number;
  /** Places of the stages in the step. */
  places: readonly number[];
  /** Weights of the earlier slopes in each stage after the first. */
  stages: readonly (readonly number[])[];
  /** Weights of the slopes in the result. */
  weights: readonly number[];
}

/** Fixed-step methods; "rk4" is the 3/8 rule, as in torchdiffeq. */
export const fixedMethods = {
  euler: { order: 1, places: [0], stages: [], weights: [1] },
  midpoint: { order: 2, places: [0, 1 / 2], stages: [[1 / 2]], weights: [0, 1] },
  heun2: { order: 2, places: [0, 1], stages: [[1]], weights: [1 / 2, 1 / 2] },
  heun3: {
    order: 3,
    places: [0, 1 / 3, 2 / 3],
    stages: [[1 / 3], [0, 2 / 3]],
    weights: [1 / 4, 0, 3 / 4],
  },
  rk4: {
    order: 4,
    places: [0, 1 / 3, 2 / 3, 1],
    stages: [[1 / 3], [-1 / 3, 1], [1, -1, 1]],
    weights: [1 / 8, 3 / 8, 3 / 8, 1 / 8],
  },
} as const satisfies Record<string, ButcherTable>;

export type FixedMethod = keyof typeof fixedMethods;

/** A method with a second result of lower order, whose difference estimates the error. */
export interface EmbeddedTable extends ButcherTable {
  /** Weights of the slopes in the error; the last is the slope at the end of the step. */
  error: readonly number[];
}

/** Dormand and Prince 1980, order 5 with error of order 4; the last stage is the next step's first. */
export const dormandPrince: EmbeddedTable = {
  order: 5,
  places: [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1],
  stages: [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
  ],
  weights: [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
  error: [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40],
};

/** Of the slopes in the continuous extension of order 4: Hairer et al. 1993, section II.6. */
export const dormandPrinceDense: readonly number[] = [
  -12715105075 / 11282082432,
  0,
  87487479700 / 32700410799,
  -10690763975 / 1880347072,
  701980252875 / 199316789632,
  -1453857185 / 822651844,
  69997945 / 29380423,
];
