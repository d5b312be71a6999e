# SPDX-License-Identifier: MIT
"""What scipy makes of the cases on standard input: a JSON array of [name, argument, ...] in, an array of results out."""
import json
import math
import sys

import numpy
from scipy import special, stats


def wilson(k, n, level):
    found = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    return [found.low, found.high]


def newcombe(k1, n1, k2, n2, level):
    (l1, u1), (l2, u2) = wilson(k1, n1, level), wilson(k2, n2, level)
    p1, p2 = k1 / n1, k2 / n2
    return [p2 - p1 - math.hypot(p2 - l2, u1 - p1), p2 - p1 + math.hypot(u2 - p2, p1 - l1)]


def welch(first, second, level):
    a, b = numpy.array(first), numpy.array(second)
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(va + vb)
    return [b.mean() - a.mean() - half, b.mean() - a.mean() + half]


def quantile(values, p, level):
    ordered, n, tail = sorted(values), len(values), (1 - level) / 2
    below = stats.binom.cdf(numpy.arange(n + 1), n, p)  # at most k of them are below the quantile
    low = [rank for rank in range(1, n + 1) if below[rank - 1] <= tail]
    high = [rank for rank in range(1, n + 1) if below[rank - 1] >= 1 - tail]
    return [ordered[low[-1] - 1] if low else None, ordered[high[0] - 1] if high else None]


def rates(k1, n1, k2, n2):
    p = (k1 + k2) / (n1 + n2)
    mixture = sum(special.betaln(k + 0.5, n - k + 0.5) - special.betaln(0.5, 0.5) for k, n in ((k1, n1), (k2, n2)))
    return float(mixture - sum(special.xlogy(k, p) + special.xlog1py(n - k, -p) for k, n in ((k1, n1), (k2, n2))))


def sample_ratio(counts, shares):
    weights = numpy.array(shares) / sum(shares)
    return float(log_dirichlet(counts, 500 * weights) - special.xlogy(counts, weights).sum())


def log_dirichlet(counts, prior):
    counts = numpy.array(counts)
    whole = special.gammaln(prior.sum()) - special.gammaln(prior.sum() + counts.sum())
    return whole + (special.gammaln(prior + counts) - special.gammaln(prior)).sum()


def mean(values, level):
    found = stats.t.interval(level, len(values) - 1, loc=numpy.mean(values), scale=stats.sem(values))
    return [float(end) for end in found]


functions = {
    "log_gamma": lambda x: float(special.gammaln(x)),
    "log_beta": lambda a, b: float(special.betaln(a, b)),
    "beta_cdf": lambda x, a, b: float(special.betainc(a, b, x)),
    "binomial_cdf": lambda k, n, p: float(stats.binom.cdf(k, n, p)),
    "normal_cdf": lambda x: float(stats.norm.cdf(x)),
    "normal_quantile": lambda p: float(stats.norm.ppf(p)),
    "t_cdf": lambda x, freedom: float(stats.t.cdf(x, freedom)),
    "t_quantile": lambda p, freedom: float(stats.t.ppf(p, freedom)),
    "wilson": wilson, "newcombe": newcombe, "welch": welch, "mean": mean, "quantile": quantile,
    "rates": rates, "sample_ratio": sample_ratio,
}
print(json.dumps([functions[name](*arguments) for name, *arguments in json.load(sys.stdin)]))
