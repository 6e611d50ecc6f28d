# Token kernels written with torch operations, as its users write them: the nearest code of a vector, and the reverse
# step of mask-and-replace diffusion (Gu et al. 2021, arXiv:2111.14822, eq. 5 and 11).
import torch
import torch.nn.functional as F


def nearest_codes(form, count, codes, width):
    """A function of nothing: indices of the nearest of `codes` vectors for each of `count`."""
    z, table = torch.randn(count, width), torch.randn(codes, width)
    halves = table.square().sum(1) / 2

    def expanded():  # all terms of the square, as reference tokenizers have it
        squares = z.square().sum(1, keepdim=True) + table.square().sum(1)
        return torch.argmin(squares - 2 * z @ table.t(), dim=1)

    def fused():  # without the term that is the same for all codes
        return torch.argmin(torch.addmm(halves, z, table.t(), alpha=-1), dim=1)

    def in_parts():
        return torch.cat([torch.addmm(halves, part, table.t(), alpha=-1).argmin(1) for part in z.split(512)])

    def distances():
        return torch.argmin(torch.cdist(z, table), dim=1)

    return {"expanded": expanded, "fused": fused, "parts": in_parts, "cdist": distances}[form]



class Step:
    """From level t to t - 1 with K codes and the mask K; logits and one-hot vectors are (B, K, N) in the published form."""

    def __init__(self, codes, batch, tokens=1024, t=40, steps=100):
        self.K, self.t, self.steps = codes, t, steps
        keep = torch.linspace(0.99999, 9e-6, steps, dtype=torch.float64)
        mask = torch.linspace(9e-6, 0.99999, steps, dtype=torch.float64)
        keep_all, mask_all = torch.cat((torch.ones(1), keep)), torch.cat((torch.zeros(1), mask))
        a = keep_all[1:] / keep_all[:-1]
        c = 1 - (1 - mask_all[1:]) / (1 - mask_all[:-1])
        self.one = tuple(float(v) for v in (a[t], (1 - a[t] - c[t]) / codes, c[t]))
        self.total = {s: (float(keep[s]), float((1 - keep[s] - mask[s]) / codes), float(mask[s])) for s in (t, t - 1)}
        self.logits = torch.randn(batch, codes, tokens)
        is_masked = torch.rand(batch, tokens) < 0.6
        self.xt = torch.where(is_masked, torch.tensor(codes), torch.randint(0, codes, (batch, tokens)))
        self.log_xt = self.log_one_hot(self.xt)
        column = lambda v: torch.full((batch, 1, 1), max(v, 1e-40), dtype=torch.float64).log().float()
        self.logs = {
            name: tuple(column(v) for v in (*rates, 1 - rates[2]))
            for name, rates in (("one", self.one), ("t", self.total[t]), ("s", self.total[t - 1]))
        }

    def log_one_hot(self, ids):
        return F.one_hot(ids, self.K + 1).transpose(1, 2).float().clamp(min=1e-30).log()

    @staticmethod
    def log_add(x, y):
        largest = torch.maximum(x, y)
        return largest + ((x - largest).exp() + (y - largest).exp()).log()

    def spread(self, log_x, name):
        """log of the chain applied to log probabilities: codes are kept or replaced, the mask stays."""
        a, b, c, not_c = self.logs[name]
        return torch.cat((self.log_add(log_x[:, :-1] + a, b), self.log_add(log_x[:, -1:] + not_c, c)), dim=1)

    def log_posterior(self):
        log_x0 = F.log_softmax(self.logits.double(), dim=1).float()
        B, K, N = log_x0.shape
        log_x0 = torch.cat((log_x0, log_x0.new_full((B, 1, N), -70.0)), dim=1).clamp(-70, 0)
        is_masked = (self.log_xt.argmax(1) == K).unsqueeze(1)
        never = log_x0.new_full((B, 1, N), -69.0776)
        past = self.spread(self.log_xt, "t")[:, :-1]
        past = torch.where(is_masked, self.logs["t"][2].expand(B, K, N), past)
        now = torch.cat((self.spread(self.log_xt, "one")[:, :-1], never), dim=1)
        to_mask = torch.cat((self.logs["one"][2].expand(B, K, N), torch.zeros(B, 1, N)), dim=1)
        now = torch.where(is_masked, to_mask, now)
        ratio = torch.cat((log_x0[:, :-1] - past, never), dim=1)
        total = torch.logsumexp(ratio, dim=1, keepdim=True)
        return (self.spread(ratio - total, "s") + now + total).clamp(-70, 0)

    def published(self):
        """In log space over one-hot vectors, with Gumbel noise: what the authors' program computes."""
        posterior = self.log_posterior()
        noise = -torch.log(1e-30 - torch.log(torch.rand_like(posterior) + 1e-30))
        return self.log_one_hot((posterior + noise).argmax(1))

    def chances(self):
        (a, b, c), (at, bt, ct), (ak, bk, ck) = self.one, self.total[self.t], self.total[self.t - 1]
        is_masked = (self.xt == self.K).unsqueeze(1)
        own = self.xt.clamp(max=self.K - 1).unsqueeze(1)
        share = torch.softmax(self.logits, dim=1)
        weights = share * torch.where(is_masked, 1 / ct, 1 / max(bt, 1e-30))
        weights = torch.where(is_masked, weights, weights.scatter(1, own, share.gather(1, own) / (at + bt)))
        total = weights.sum(dim=1, keepdim=True)
        reached = weights * ak + total * bk
        scaled = reached * torch.where(is_masked, c, b)
        drawn = torch.where(is_masked, scaled, scaled.scatter(1, own, reached.gather(1, own) * (a + b)))
        return torch.cat((drawn, torch.where(is_masked, total * ck, torch.zeros(()))), dim=1)

    def closed(self):
        """A draw of the same distribution by its closed form from integer tokens."""
        chances = self.chances()
        noise = torch.empty_like(chances).exponential_()
        return (chances / noise).argmax(1)
