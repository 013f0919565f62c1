#!/usr/bin/env python3
"""Installs libtorch (CPU only) into the user's cache and prints its folder, the value for LIBTORCH.

usage: libtorch.py CACHE_DIR

The wheels named in libtorch.lock are fetched through pip (so that pip's own settings decide from where), checked
against their SHA-256, and only the parts that a CPU-only program needs are unpacked. Safe to kill at any moment and
to start twice: a download continues where it stopped, an install appears by one rename, a lock keeps others waiting.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import zipfile

LOCK_FILE = pathlib.Path(__file__).with_name("libtorch.lock")
# Raise this when the steps below change what an install holds: older installs are then replaced.
RECIPE = 1
PYTHON_TAG = ("3.11", "cp311")
# Download (0.54 GB) and unpacked files (0.58 GB) lie side by side until the wheels are deleted.
FREE_BYTES_NEEDED = 1_300_000_000
# Attempts in a row that bring not one byte before the download is given up.
ATTEMPTS_WITHOUT_PROGRESS_MAX = 5
STAMP = "dtwn-install.json"

WANTED = re.compile(r"torch/(lib|include|share)/|nvidia/cu13/lib/.*\.so")
UNWANTED = re.compile(
    r"torch/lib/(libtorch_cuda.*|libc10_cuda|libtorch_python|libtorch_nvshmem|libcaffe2_nvrtc|libshm|libtorch)\.so"
    r"|torch/lib/libshm"
    # Parts of libcupti that serve GPU profilers only.
    r"|nvidia/cu13/lib/lib(nvperf|checkpoint|pcsampling)"
)


class SetupError(Exception):
    """What went wrong, in words for the person at the terminal."""


def say(text):
    print(f"setup: {text}", file=sys.stderr, flush=True)


class Wheel:
    """One line of the lock file."""

    def __init__(self, sha256, filename):
        self.sha256 = sha256
        self.filename = filename
        name, self.version, *_, platforms = filename[: -len(".whl")].split("-")
        self.name = name.replace("_", "-")
        self.platforms = platforms.split(".")

    @property
    def requirement(self):
        return f"{self.name}=={self.version}"


def read_lock():
    lines = (line.split("#")[0].split() for line in LOCK_FILE.read_text().splitlines())
    wheels = [Wheel(*fields) for fields in lines if fields]
    return wheels[0], wheels[1:]


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def recipe_id():
    return f"{RECIPE}:{sha256_of(LOCK_FILE)}"


def is_sound(install):
    """Whether `install` is complete, of this recipe, and none of its libraries was cut or deleted since."""
    try:
        stamp = json.loads((install / STAMP).read_text())
        return stamp["recipe"] == recipe_id() and all(
            (install / name).stat().st_size == size for name, size in stamp["bytes"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def check_machine(cache):
    libc, _ = platform.libc_ver()
    machine = (platform.system(), platform.machine(), libc)
    if machine != ("Linux", "x86_64", "glibc"):
        raise SetupError(
            f"no pinned libtorch for this machine ({' '.join(filter(None, machine))}; it is for Linux x86_64 with "
            "glibc); install libtorch 2.13.0 yourself and set LIBTORCH to its folder"
        )
    if sys.version_info < (3, 10):
        raise SetupError(f"Python 3.10 or newer is needed to fetch libtorch; this is {platform.python_version()}")
    free = shutil.disk_usage(cache).free
    if free < FREE_BYTES_NEEDED:
        raise SetupError(
            f"{cache} has {free / 1e9:.1f} GB free; fetching and unpacking libtorch needs "
            f"{FREE_BYTES_NEEDED / 1e9:.1f} GB (set XDG_CACHE_HOME to put it elsewhere)"
        )


@contextlib.contextmanager
def exclusive(cache):
    """Keeps a second set-up waiting; the kernel drops the lock when its holder dies."""
    with open(cache / "setup.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work on libtorch; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pip_environment():
    # Nothing is installed by pip here, so the guards against installing outside a virtual environment do not apply.
    return {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run_pip(arguments):
    done = subprocess.run(
        [sys.executable, *arguments], env=pip_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        command = " ".join(["python3", *map(str, arguments)])
        # Warnings are about its own retries; what matters is how it ended.
        complaint = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("WARNING"))
        raise SetupError(f"pip failed (exit {done.returncode}): {command}\n{complaint}")
    return done.stdout


def fetch_pip(wheel, downloads):
    """The pinned pip itself, since parts of it are used that differ between versions."""
    path = downloads / wheel.filename
    if not (path.exists() and sha256_of(path) == wheel.sha256):
        requirement = downloads / "pip.txt"
        requirement.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", downloads]
        run_pip(["-m", "pip", "download", *options, "-r", requirement])
    return path


@contextlib.contextmanager
def package_index(pip, wheels):
    """pip's own HTTP session, and the addresses of the wheels that suit: (session, {filename: URL}).

    Indexes, certificates, proxies, credentials and time-outs are as the user has set them for pip. pip's commands would
    do but for two things: they fetch whole wheels from an index that serves no metadata apart, and none continues a
    download that was killed. The modules below are internal to pip; the exact pip is pinned.
    """
    sys.path.insert(0, str(pip))
    os.environ.update(pip_environment())
    from pip._internal.cli.cmdoptions import make_target_python
    from pip._internal.commands import create_command

    version, abi = PYTHON_TAG
    # Without pip's cache, which would keep a second copy of half a gigabyte.
    arguments = ["--no-cache-dir", f"--python-version={version}", "--implementation=cp", f"--abi={abi}"]
    arguments += [f"--platform={tag}" for wheel in wheels for tag in wheel.platforms]
    command = create_command("download")
    options, _ = command.parse_args(arguments)
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, make_target_python(options))
        offered = [candidate.link for wheel in wheels for candidate in finder.find_all_candidates(wheel.name)]
        yield session, {link.filename: link.url_without_fragment for link in offered}


class Progress:
    """A line that is redrawn on a terminal, and one line for every tenth in a log."""

    def __init__(self, wheel):
        self.name = wheel.requirement
        self.shown = None
        self.redraw = sys.stderr.isatty()

    def show(self, done, total):
        percent = 100 * done // total if total else 0
        step = percent if self.redraw else percent // 10 * 10
        if step == self.shown:
            return
        self.shown = step
        text = f"setup: {self.name}: {step} % of {total / 1e6:.0f} MB"
        print(f"\r{text}" if self.redraw else text, end="" if self.redraw else "\n", file=sys.stderr, flush=True)

    def finish(self):
        if self.redraw and self.shown is not None:
            print(file=sys.stderr, flush=True)


def receive(session, url, part, progress):
    """One attempt: appends to `part` what is missing. Returns whether the file is complete."""
    have = part.stat().st_size if part.exists() else 0
    # Byte positions count in the file itself, so no compression on the way.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True) as response:
        if response.status_code == 416:
            return True
        response.raise_for_status()
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status_code != 206 or not continues:
            have = 0
        total = have + int(response.headers.get("Content-Length", 0))
        with open(part, "ab" if have else "wb") as file:
            for chunk in response.iter_content(1 << 20):
                file.write(chunk)
                have += len(chunk)
                progress.show(have, total)
    return have >= total


def download(session, url, part, progress):
    """Repeats `receive` until the file is complete or nothing more arrives."""
    from pip._vendor.requests import RequestException

    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if receive(session, url, part, progress):
                return
            problem = "the connection closed early"
        except RequestException as error:
            problem = str(error)
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= ATTEMPTS_WITHOUT_PROGRESS_MAX:
            raise SetupError(f"could not download {url}: {problem}; what has arrived is kept, so run this again")
        say(f"{part.name}: {problem}; going on at {after / 1e6:.0f} MB")
        time.sleep(2**failures)


def fetch(session, wheel, url, downloads):
    """The wheel on disk, checked."""
    path = downloads / wheel.filename
    if path.exists():
        return path
    part = downloads / f"{wheel.filename}.part"
    # A second round only for a partial file that turned out to be damaged.
    for _ in range(2):
        if url.startswith("file:"):
            shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(url).path), part)
        else:
            progress = Progress(wheel)
            download(session, url, part, progress)
            progress.finish()
        found = sha256_of(part)
        if found == wheel.sha256:
            return part.rename(path)
        part.unlink()
        say(f"{wheel.filename} has the wrong SHA-256 ({found}); deleted")
    raise SetupError(f"{url} is not the file that {LOCK_FILE.name} pins (SHA-256 {wheel.sha256})")


def unpack(path, target):
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename
            if not member.is_dir() and WANTED.match(name) and not UNWANTED.match(name):
                archive.extract(member, target)


def compile_or_fail(arguments, what):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SetupError(f"{what} failed (exit {done.returncode}): {' '.join(arguments)}\n{done.stdout.strip()}")


def replace_libtorch_so(lib):
    """The wheel's libtorch.so wants the CUDA half; an empty one that wants only the CPU half stands in."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    link = ["-Wl,--no-as-needed", f"-L{lib}", "-Wl,-rpath,$ORIGIN"]
    shared = [*compiler, "-shared", "-o", str(lib / "libtorch.so"), "-x", "c++", "/dev/null"]
    compile_or_fail([*shared, *link, "-Wl,-soname,libtorch.so", "-ltorch_cpu", "-lc10"], "linking libtorch.so")
    probe = lib / "probe"
    source = lib / "probe.cpp"
    source.write_text("int main() { return 0; }\n")
    link[-1] = f"-Wl,-rpath,{lib}"
    compile_or_fail([*compiler, "-o", str(probe), str(source), *link, "-ltorch"], "linking a program with libtorch")
    compile_or_fail([str(probe)], "loading libtorch")
    probe.unlink()
    source.unlink()


def build(wheels, paths, torch_version, install):
    """Unpacks beside `install` and renames at the end, so that an interrupted one is never taken for whole."""
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=install.parent) as scratch:
        tree = pathlib.Path(scratch) / "new"
        for path in paths:
            say(f"unpacking {path.name}")
            unpack(path, tree)
        replace_libtorch_so(tree / "torch/lib")
        (tree / "torch/build-version").write_text(f"{torch_version}\n")
        libraries = [file for file in tree.rglob("*.so*") if file.is_file()]
        stamp = {
            "recipe": recipe_id(),
            "wheels": {wheel.filename: wheel.sha256 for wheel in wheels},
            "bytes": {str(file.relative_to(tree)): file.stat().st_size for file in libraries},
        }
        (tree / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
        # The rename must not reach the disk before what it names.
        os.sync()
        if install.exists():
            install.rename(pathlib.Path(scratch) / "old")
        tree.rename(install)


def ensure(cache):
    """The folder of a sound libtorch, installed now if there was none."""
    pip_wheel, wheels = read_lock()
    version = wheels[0].version
    install = cache / f"libtorch-{version}"
    downloads = cache / "downloads"
    if is_sound(install) and not downloads.exists():
        return install
    cache.mkdir(parents=True, exist_ok=True)
    with exclusive(cache):
        for left in cache.glob(".unpack-*"):
            shutil.rmtree(left)
        if is_sound(install):
            # What a set-up left that was killed after the install was in place.
            shutil.rmtree(downloads, ignore_errors=True)
            return install
        check_machine(cache)
        downloads.mkdir(exist_ok=True)
        say(f"installing libtorch {version} into {install} (540 MB to download, 490 MB on disk)")
        pip = fetch_pip(pip_wheel, downloads)
        with package_index(pip, wheels) as (session, urls):
            if missing := [wheel.filename for wheel in wheels if wheel.filename not in urls]:
                raise SetupError(f"pip finds no {', '.join(missing)} in the package index in use (see: pip config list)")
            paths = [fetch(session, wheel, urls[wheel.filename], downloads) for wheel in wheels]
        build(wheels, paths, version, install)
        shutil.rmtree(downloads)
    return install


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: libtorch.py CACHE_DIR")
    try:
        print(ensure(pathlib.Path(sys.argv[1]).resolve()) / "torch")
    except (SetupError, OSError) as error:
        say(f"libtorch: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; what has been downloaded is kept")
        sys.exit(130)


if __name__ == "__main__":
    main()
