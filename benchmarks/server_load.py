"""The table of docs/serving.md, "Under load": `python -m benchmarks.server_load`.

Starts a `diffusekit serve` on a free port and measures 200 simultaneous requests, 100 clients that disconnect, 300
mixed images, and the time of one image against `generate()` in a warm process.
"""

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TINY = {"prompt": "a red cat", "steps": 2, "width": 64, "height": 64}


@contextlib.contextmanager
def server(*flags: str) -> Iterator[tuple[str, int, int]]:
    """Start a server, yield (host, port, process id) when its model is in memory, and stop it at the end."""
    command = [sys.executable, "-m", "diffusekit", "serve", "--port", "0", *flags]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout
        host, _, port = process.stdout.readline().strip().removeprefix("http://").rpartition(":")
        try:
            while asyncio.run(ask(host, int(port), "GET", "/readyz"))[0] != 200:
                time.sleep(0.1)
            yield host, int(port), process.pid
        finally:
            process.terminate()
            process.wait(40)


def request(host: str, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    text = json.dumps(body) if body is not None else ""
    kind = "Content-Type: application/json\r\n" if body is not None else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{kind}Content-Length: {len(text)}\r\n"
    return f"{head}Connection: close\r\n\r\n{text}".encode()


async def ask(host: str, port: int, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """Send one request on a new connection and return (status, body)."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request(host, method, path, body))
    answer = await reader.read()
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


async def burst(host: str, port: int, clients: int) -> dict[str, Any]:
    """Request an image on `clients` connections at the same moment."""
    opened = [await asyncio.open_connection(host, port) for _ in range(clients)]

    async def one(index: int) -> tuple[int, float]:
        reader, writer = opened[index]
        began = time.perf_counter()
        writer.write(request(host, "POST", "/sdapi/v1/txt2img", TINY))
        head = await reader.readuntil(b"\r\n\r\n")
        seconds = time.perf_counter() - began
        await reader.read()
        writer.close()
        return int(head.split()[1]), seconds

    answers = await asyncio.gather(*(one(i) for i in range(clients)))
    refused = sorted(seconds for status, seconds in answers if status in (429, 503))
    return {
        "statuses": dict(Counter(status for status, _ in answers)),
        "refused_ms": {
            "median": statistics.median(refused) * 1000,
            "p95": refused[int(len(refused) * 0.95)] * 1000,
            "max": refused[-1] * 1000,
        },
        "all_finished_s": max(seconds for _, seconds in answers),
    }


async def hang_up(host: str, port: int, clients: int) -> dict[str, Any]:
    """Disconnect at the third step, with one client after the other, and measure when the server stops."""
    late, seconds, left = [], [], 0
    for _ in range(clients):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(request(host, "POST", "/sdapi/v1/txt2img", TINY | {"steps": 100}))
        step = 0
        while step < 3:
            state = await state_of(host, port)
            step, job = state["sampling_step"], state["job"]
        writer.close()
        began = time.perf_counter()
        while (await state_of(host, port))["job"] == job and time.perf_counter() - began < 10:
            pass
        seconds.append(time.perf_counter() - began)
        ended = json.loads((await ask(host, port, "GET", f"/api/jobs/{job}"))[1])
        left += ended["state"] != "cancelled"
        late.append(ended["step"] - step)
    return {
        "left_running": left,
        "steps_after": {"median": statistics.median(late), "max": max(late)},
        "freed_ms": {"median": statistics.median(seconds) * 1000, "max": max(seconds) * 1000},
    }


async def state_of(host: str, port: int) -> dict[str, Any]:
    path = "/sdapi/v1/progress?skip_current_image=true"
    return json.loads((await ask(host, port, "GET", path))[1])["state"]


async def mixed(host: str, port: int, process: int, pictures: int, *, clients: int = 8) -> list[dict[str, float]]:
    """Request images of many sizes and samplers through three APIs, and sample the memory of the server."""
    rng, samples = random.Random(0), []
    numbers = iter(range(pictures))
    every = max(pictures // 6, 1)

    async def client() -> None:
        for i in numbers:
            path, body = random_request(rng)
            status, _ = await ask(host, port, "POST", path, body)
            assert status in (200, 202), status
            while status == 202 and (await state_of(host, port))["job_count"]:
                await asyncio.sleep(0.02)
            if (i + 1) % every == 0:
                samples.append({"pictures": i + 1} | process_usage(process))

    await asyncio.gather(*(client() for _ in range(clients)))
    return samples


def random_request(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Return one random request."""
    side = rng.choice((64, 96, 128))
    prompt = " ".join(rng.choices(("a", "red", "cat", "house", "galaxy", "on", "grass"), k=6))
    sampler = rng.choice(("euler", "euler_a", "dpm++_2m", "ddim", "unipc", "lms"))
    steps = rng.randint(2, 5)
    both = {"prompt": prompt, "steps": steps, "seed": rng.randrange(2**31)}
    sized = {"width": side, "height": side}
    return rng.choice(
        (
            ("/sdapi/v1/txt2img", both | sized | {"sampler_name": sampler}),
            ("/v1/images/generations", both | {"size": f"{side}x{side}", "sampler": sampler}),
            ("/v1/images/generations", both | {"size": f"{side}x{side}", "stream": True, "partial_images": 2}),
            ("/v1/images/generations", both | {"size": "auto", "output_format": "webp"}),
            ("/api/jobs", {"settings": both | sized | {"sampler": sampler}}),
        )
    )


def process_usage(process: int) -> dict[str, float]:
    """Return the memory in MiB, the open files and the threads of a process."""
    about = Path(f"/proc/{process}")
    pages = int((about / "statm").read_text().split()[1])
    return {
        "memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len(list((about / "fd").iterdir())),
        "threads": len(list((about / "task").iterdir())),
    }


def overhead(host: str, port: int, rounds: int) -> dict[str, float]:
    """Measure one image of `mini`: from the server, and with `generate()` and `save` here, in turn."""
    import diffusekit

    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds + 2):
            began = time.perf_counter()
            diffusekit.generate("a red cat", seed=i)[0].save(Path(folder, f"{i}.png"))
            middle = time.perf_counter()
            body = {"prompt": "a red cat", "seed": i}
            status, _ = asyncio.run(ask(host, port, "POST", "/sdapi/v1/txt2img", body))
            assert status == 200
            plain.append(middle - began)
            ours.append(time.perf_counter() - middle)
    ours, plain = ours[2:], plain[2:]
    return {
        "generate_s": statistics.median(plain),
        "server_s": statistics.median(ours),
        "ratio": statistics.median(a / b for a, b in zip(ours, plain, strict=True)),
    }


def main() -> None:
    with server("--queue", "32", "--device", "cpu") as (host, port, process):
        print("load average", os.getloadavg()[0])
        print("burst of 200", asyncio.run(burst(host, port, 200)))
        print("100 that disconnect", asyncio.run(hang_up(host, port, 100)))
        for row in asyncio.run(mixed(host, port, process, 300)):
            print("mixed", row)
        print("overhead", overhead(host, port, 20))


if __name__ == "__main__":
    main()
