# The networks of lib/cli/bench-workloads.ts in torch, for timing only: the same operations and sizes, random weights.
import math

import torch
import torch.nn.functional as F
from torch import nn


def sinusoids(times, width):
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10000.0) / half))
    angles = times.float().unsqueeze(1) * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-6)


def conv(start, end, stride=1):
    return nn.Conv2d(start, end, kernel_size=3, stride=stride, padding=1)


def doubled(x):
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Residual(nn.Module):
    """norm, SiLU, convolution, twice; `time` is added between or, with `modulate`, scales and shifts the second norm."""

    def __init__(self, start, end, time=0, modulate=False, resample=None):
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = norm(start), conv(start, end), norm(end), conv(end, end)
        self.time = nn.Linear(time, end * (2 if modulate else 1)) if time else None
        self.shortcut = nn.Conv2d(start, end, 1) if start != end else None
        self.modulate = modulate
        self.resample = {None: None, "down": lambda x: F.avg_pool2d(x, 2), "up": doubled}[resample]

    def forward(self, x, time=None):
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        told = self.time(F.silu(time))[..., None, None] if self.time is not None else None
        if told is None:
            h = self.norm2(h)
        elif self.modulate:
            scale, shift = torch.chunk(told, 2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), scale + 1)
        else:
            h = self.norm2(h + told)
        h = self.conv2(F.silu(h))
        return h + (x if self.shortcut is None else self.shortcut(x))


class MapAttention(nn.Module):
    def __init__(self, channels, heads=1):
        super().__init__()
        self.heads, self.norm = heads, norm(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x, time=None):
        B, C, H, W = x.shape
        width = C // self.heads
        qkv = self.qkv(self.norm(x)).reshape(B * self.heads, 3, width, H * W)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        weights = torch.softmax(torch.bmm((q * width**-0.5).transpose(1, 2), k), dim=-1)
        mixed = torch.bmm(v, weights.transpose(1, 2)).view(B, C, H, W)
        return x + self.out(mixed)


class Resample(nn.Module):
    def __init__(self, channels, up):
        super().__init__()
        self.up, self.conv = up, conv(channels, channels, 1 if up else 2)

    def forward(self, x, time=None):
        return self.conv(doubled(x) if self.up else x)


class UNet(nn.Module):
    """`attention`: sides of maps; `modern`: heads of 64 channels, modulated norms, residual resampling."""

    def __init__(self, side, channels, multipliers, blocks, attention, out=3, modern=False):
        super().__init__()
        time = 4 * channels
        self.channels = channels
        self.embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        self.first = conv(3, channels)

        def residual(start, end, resample=None):
            return Residual(start, end, time, modern, resample)

        def stage(start, end, at):
            parts = [residual(start, end)]
            if at in attention:
                parts.append(MapAttention(end, end // 64 if modern else 1))
            return parts

        def change(width, way):
            return residual(width, width, way) if modern else Resample(width, way == "up")

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        kept, width, last = [channels], channels, len(multipliers) - 1
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(nn.ModuleList(stage(width, channels * multiplier, side)))
                width = channels * multiplier
                kept.append(width)
            if level < last:
                self.down.append(nn.ModuleList([change(width, "down")]))
                kept.append(width)
                side //= 2
        attend = MapAttention(width, width // 64 if modern else 1)
        self.middle = nn.ModuleList([residual(width, width), attend, residual(width, width)])
        for level in range(last, -1, -1):
            for block in range(blocks + 1):
                parts = stage(width + kept.pop(), channels * multipliers[level], side)
                width = channels * multipliers[level]
                if level > 0 and block == blocks:
                    parts.append(change(width, "up"))
                    side *= 2
                self.up.append(nn.ModuleList(parts))
        self.norm, self.last = norm(width), conv(width, out)

    def forward(self, x, times):
        time = self.embed(sinusoids(times, self.channels))
        h = self.first(x)
        kept = [h]
        for parts in self.down:
            for part in parts:
                h = part(h, time)
            kept.append(h)
        for part in self.middle:
            h = part(h, time)
        for parts in self.up:
            h = torch.cat((h, kept.pop()), dim=1)
            for part in parts:
                h = part(h, time)
        return self.last(F.silu(self.norm(h)))


WIDTHS = (128, 128, 256, 256, 512)  # of a VQGAN with one token for 16 x 16 pixels


def vqgan_encoder():
    parts, width = [conv(3, 128)], 128
    for level, wanted in enumerate(WIDTHS):
        for _ in range(2):
            parts.append(Residual(width, wanted))
            width = wanted
            if level == 4:
                parts.append(MapAttention(width))
        if level < 4:
            parts.append(Resample(width, up=False))
    parts += [Residual(width, width), MapAttention(width), Residual(width, width)]
    return nn.Sequential(*parts, norm(width), nn.SiLU(), conv(width, 256), nn.Conv2d(256, 256, 1))


def vqgan_decoder():
    width = WIDTHS[-1]
    parts = [nn.Conv2d(256, 256, 1), conv(256, width)]
    parts += [Residual(width, width), MapAttention(width), Residual(width, width)]
    for level in range(4, -1, -1):
        for _ in range(3):
            parts.append(Residual(width, WIDTHS[level]))
            width = WIDTHS[level]
            if level == 4:
                parts.append(MapAttention(width))
        if level > 0:
            parts.append(Resample(width, up=True))
    return nn.Sequential(*parts, norm(width), nn.SiLU(), conv(width, 3))


class BareNorm(nn.Module):
    """Layer norm whose scale and shift are given from outside; buffers, because the ONNX exporter wants some."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("one", torch.ones(width))
        self.register_buffer("zero", torch.zeros(width))

    def forward(self, x, shift, scale):
        normed = F.layer_norm(x, self.one.shape, self.one, self.zero, 1e-6)
        return normed * (scale.unsqueeze(1) + 1) + shift.unsqueeze(1)


def attend(q, k, v, heads):
    """(B, N, D), (B, M, D), (B, M, D) -> (B, N, D)."""
    B, N, D = q.shape
    apart = lambda x: x.reshape(B, -1, heads, D // heads).transpose(1, 2)
    weights = torch.softmax(torch.matmul(apart(q) * (D // heads) ** -0.5, apart(k).transpose(2, 3)), dim=-1)
    return torch.matmul(weights, apart(v)).transpose(1, 2).reshape(B, N, D)


class DitBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = BareNorm(width), BareNorm(width)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, condition):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        q, k, v = self.qkv(self.norm1(x, shift1, scale1)).chunk(3, dim=-1)
        x = x + gate1.unsqueeze(1) * self.out(attend(q, k, v, self.heads))
        hidden = F.gelu(self.rise(self.norm2(x, shift2, scale2)), approximate="tanh")
        return x + gate2.unsqueeze(1) * self.fall(hidden)


class Dit(nn.Module):
    """Patches of 2 x 2 of a latent (4, 32, 32), 12 layers, noise and variance predicted."""

    def __init__(self, width, heads):
        super().__init__()
        self.patches = nn.Conv2d(4, width, 2, stride=2)
        self.register_buffer("places", torch.randn(1, 256, width))
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = nn.Embedding(1001, width)
        self.blocks = nn.ModuleList([DitBlock(width, heads) for _ in range(12)])
        self.norm, self.modulation, self.head = BareNorm(width), nn.Linear(width, 2 * width), nn.Linear(width, 32)

    def forward(self, x, times, labels):
        h = self.patches(x).flatten(2).transpose(1, 2) + self.places
        condition = F.silu(self.time(sinusoids(times, 256)) + self.labels(labels))
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        pixels = self.head(self.norm(h, shift, scale)).reshape(-1, 16, 16, 2, 2, 8)
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, 32, 32)


class TimedNorm(nn.Module):
    """Layer norm scaled and shifted by a row of a table of timesteps."""

    def __init__(self, width, steps=100):
        super().__init__()
        self.table, self.project, self.norm = nn.Embedding(steps, width), nn.Linear(width, 2 * width), BareNorm(width)

    def forward(self, x, times):
        scale, shift = self.project(F.silu(self.table(times))).chunk(2, dim=-1)
        return self.norm(x, shift, scale)


class VqdBlock(nn.Module):
    def __init__(self, width, heads, text):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.norm3 = TimedNorm(width), TimedNorm(width), nn.LayerNorm(width)
        self.qkv, self.out1 = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.pair, self.out2 = nn.Linear(width, width), nn.Linear(text, 2 * width), nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, text, times):
        q, k, v = self.qkv(self.norm1(x, times)).chunk(3, dim=-1)
        x = x + self.out1(attend(q, k, v, self.heads))
        k, v = self.pair(text).chunk(2, dim=-1)
        x = x + self.out2(attend(self.query(self.norm2(x, times)), k, v, self.heads))
        hidden = self.rise(self.norm3(x))
        return x + self.fall(hidden * torch.sigmoid(1.702 * hidden))


class Vqd(nn.Module):
    def __init__(self, width=512, layers=12, heads=8, codes=2886, text=512):
        super().__init__()
        self.words = nn.Embedding(codes + 1, width)
        self.rows, self.columns = nn.Parameter(torch.randn(32, 1, width)), nn.Parameter(torch.randn(1, 32, width))
        self.blocks = nn.ModuleList([VqdBlock(width, heads, text) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, codes)

    def forward(self, tokens, text, times):
        h = self.words(tokens) + (self.rows + self.columns).flatten(0, 1)
        for block in self.blocks:
            h = block(h, text, times)
        return self.head(self.norm(h))
