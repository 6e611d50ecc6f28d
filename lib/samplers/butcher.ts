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
  /**
   * Weights of the slopes in the error. One more than `weights`: the slope at the end of the step, which
   * is the first of the next one. As many: the last slope counts as the one at the end.
   */
  error: readonly number[];
  /** Of the same slopes in the state halfway, with which a quartic passes through the step. */
  middle: readonly number[];
}

const dopri8Weights = [
  14005451 / 335480064, 0, 0, 0, 0, -59238493 / 1068277825, 181606767 / 758867731,
  561292985 / 797845732, -1041891430 / 1371343529, 760417239 / 1151165299, 118820643 / 751138087,
  -528747749 / 2220607170, 1 / 4,
]; // prettier-ignore

const dopri8Lower = [
  13451932 / 455176623, 0, 0, 0, 0, -808719846 / 976000145, 1757004468 / 5645159321,
  656045339 / 265891186, -3867574721 / 1518517206, 465885868 / 322736535, 53011238 / 667516719, 2 / 45, 0,
]; // prettier-ignore

/**
 * Methods with an error estimate: Bogacki and Shampine 1989 ("bosh3"), Dormand and Prince 1980 and 1981
 * ("dopri5", "dopri8"), Fehlberg 1969, and Heun's method with Euler's as the lower one.
 */
export const adaptiveMethods = {
  "adaptive-heun": {
    order: 2,
    places: [0, 1],
    stages: [[1]],
    weights: [1 / 2, 1 / 2],
    error: [1 / 2, -1 / 2],
    middle: [1 / 2, 0],
  },
  fehlberg2: {
    order: 2,
    places: [0, 1 / 2, 1],
    stages: [[1 / 2], [1 / 256, 255 / 256]],
    weights: [1 / 512, 255 / 256, 1 / 512],
    error: [-1 / 512, 0, 1 / 512],
    middle: [0, 1 / 2, 0],
  },
  bosh3: {
    order: 3,
    places: [0, 1 / 2, 3 / 4],
    stages: [[1 / 2], [0, 3 / 4]],
    weights: [2 / 9, 1 / 3, 4 / 9],
    error: [-5 / 72, 1 / 12, 1 / 9, -1 / 8],
    middle: [0, 1 / 2, 0, 0],
  },
  dopri5: {
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
    middle: [
      6025192743 / 60171106304, 0, 51252292925 / 130801643196, -2691868925 / 90256659456,
      187940372067 / 3189068634112, -1776094331 / 39487288512, 11237099 / 470086768,
    ],
  },
  dopri8: {
    order: 8,
    places: [
      0, 1 / 18, 1 / 12, 1 / 8, 5 / 16, 3 / 8, 59 / 400, 93 / 200, 5490023248 / 9719169821, 13 / 20,
      1201146811 / 1299019798, 1, 1,
    ],
    stages: [
      [1 / 18],
      [1 / 48, 1 / 16],
      [1 / 32, 0, 3 / 32],
      [5 / 16, 0, -75 / 64, 75 / 64],
      [3 / 80, 0, 0, 3 / 16, 3 / 20],
      [29443841 / 614563906, 0, 0, 77736538 / 692538347, -28693883 / 1125e6, 23124283 / 18e8],
      [
        16016141 / 946692911, 0, 0, 61564180 / 158732637, 22789713 / 633445777,
        545815736 / 2771057229, -180193667 / 1043307555,
      ],
      [
        39632708 / 573591083, 0, 0, -433636366 / 683701615, -421739975 / 2616292301,
        100302831 / 723423059, 790204164 / 839813087, 800635310 / 3783071287,
      ],
      [
        246121993 / 1340847787, 0, 0, -37695042795 / 15268766246, -309121744 / 1061227803,
        -12992083 / 490766935, 6005943493 / 2108947869, 393006217 / 1396673457,
        123872331 / 1001029789,
      ],
      [
        -1028468189 / 846180014, 0, 0, 8478235783 / 508512852, 1311729495 / 1432422823,
        -10304129995 / 1701304382, -48777925059 / 3047939560, 15336726248 / 1032824649,
        -45442868181 / 3398467696, 3065993473 / 597172653,
      ],
      [
        185892177 / 718116043, 0, 0, -3185094517 / 667107341, -477755414 / 1098053517,
        -703635378 / 230739211, 5731566787 / 1027545527, 5232866602 / 850066563,
        -4093664535 / 808688257, 3962137247 / 1805957418, 65686358 / 487910083,
      ],
      [
        403863854 / 491063109, 0, 0, -5068492393 / 434740067, -411421997 / 543043805,
        652783627 / 914296604, 11173962825 / 925320556, -13158990841 / 6184727034,
        3936647629 / 1978049680, -160528059 / 685178525, 248638103 / 1413531060, 0,
      ],
    ],
    weights: dopri8Weights,
    error: [...dopri8Weights.map((weight, i) => weight - dopri8Lower[i]!), 0],
    middle: [
      0.041031303607393876, 0, 0, 0, 0, 0.05100562801991422, 0.23889306774122063, 0.3096870143996103,
      -0.2172325471755356, 0.0783340567933192, -0.0018614369715578, 0.007072844202678687,
      0.00690847373200575, -0.013838404349047316,
    ],
  },
} satisfies Record<string, EmbeddedTable>; // prettier-ignore

export type AdaptiveMethod = keyof typeof adaptiveMethods;

/** All of them, for steps of fixed size. */
export const explicitMethods: Readonly<Record<FixedMethod | AdaptiveMethod, ButcherTable>> = {
  ...fixedMethods,
  ...adaptiveMethods,
};
