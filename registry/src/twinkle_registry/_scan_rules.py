"""What the scan looks for: names of modules, functions and attributes, and what each of them can do. Only data."""

from __future__ import annotations

MAX_FILE_BYTES = 2**19  # reading takes some 200 bytes of memory and 5 µs for each byte of dense source
MAX_TOTAL_BYTES = 2**21
MAX_LINE = 1000  # characters; formatted code has 132 at most, generated tables more
MAX_TEXT = 1000  # characters of a literal without a space: no prose
NATIVE_SUFFIXES = (".so", ".pyd", ".dll", ".dylib", ".pyc", ".pyo")

WHAT = {
    "network": "can reach the network",
    "subprocess": "can start or signal processes",
    "native": "can run machine code",
    "files": "can read or change files",
    "pickle": "can run code hidden in data",
    "dynamic-code": "can run code that isn't written here",
    "environment": "can read the environment, which may hold tokens",
    "global-state": "changes code or state of others",
}
"""What each capability means, as the end of a sentence."""


def _table(**names: str) -> dict[str, str]:
    return {name: capability.replace("_", "-") for capability, text in names.items() for name in text.split()}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULES = _table(
    network="""socket ssl http.client http.server urllib.request urllib3 requests httpx httpx2 aiohttp ftplib smtplib poplib
        imaplib telnetlib nntplib xmlrpc socketserver websocket websockets paramiko fabric grpc zmq huggingface_hub modelscope
        modelscope_hub boto3 botocore google.cloud oss2 webbrowser torch.hub _socket gradio flask fastapi uvicorn asyncssh
        pycurl wandb swanlab""",
    subprocess="subprocess multiprocessing pty pexpect sh plumbum _posixsubprocess torch.multiprocessing billiard invoke",
    native="""ctypes _ctypes cffi _cffi_backend torch.utils.cpp_extension numpy.ctypeslib pycuda cppyy pybind11 _imp mmap""",
    files="shutil tempfile glob fileinput sqlite3 dbm zipfile tarfile linecache",
    pickle="pickle cPickle _pickle dill cloudpickle marshal shelve joblib jsonpickle copyreg",
    dynamic_code="runpy code codeop imp zipimport importlib.util importlib.machinery importlib.abc pkgutil pip ensurepip bdb gc",
    global_state="atexit signal site sitecustomize usercustomize",
    environment="getpass pwd keyring netrc",
)
"""What importing a module, or one below it, tells."""

NAMES = _table(
    network="""asyncio.open_connection asyncio.start_server asyncio.open_unix_connection torch.hub.load
        torch.hub.load_state_dict_from_url torch.hub.download_url_to_file urllib.request.urlopen datasets.load_dataset""",
    subprocess="""os.system os.popen os.fork os.forkpty os.kill os.killpg os.startfile os.posix_spawn os.posix_spawnp os.execl
        os.execle os.execlp os.execlpe os.execv os.execve os.execvp os.execvpe os.spawnl os.spawnle os.spawnlp os.spawnlpe
        os.spawnv os.spawnve os.spawnvp os.spawnvpe os._exit os.abort os.setuid os.setgid os.nice
        concurrent.futures.ProcessPoolExecutor asyncio.create_subprocess_exec asyncio.create_subprocess_shell""",
    native="""torch.ops.load_library torch.classes.load_library cupy.RawModule cupy.RawKernel
        importlib.machinery.ExtensionFileLoader torch.utils.cpp_extension.load_inline""",
    files="""open io.open io.FileIO io.open_code os.open os.remove os.unlink os.rename os.renames os.replace os.rmdir
        os.removedirs os.mkdir os.makedirs os.mkfifo os.mknod os.chmod os.chown os.link os.symlink os.truncate os.listdir
        os.scandir os.walk os.fwalk os.chdir os.chroot os.utime os.dup2 os.fdopen torch.save numpy.fromfile numpy.save
        numpy.savez numpy.savez_compressed numpy.savetxt numpy.loadtxt numpy.genfromtxt numpy.memmap
        safetensors.torch.save_file safetensors.torch.load_file codecs.open""",
    pickle="""pandas.read_pickle yaml.load yaml.load_all yaml.unsafe_load yaml.unsafe_load_all yaml.full_load yaml.Loader
        yaml.UnsafeLoader torch.jit.load torch.package.PackageImporter multiprocessing.reduction""",
    dynamic_code="""eval exec compile __import__ __builtins__ importlib.import_module importlib.reload importlib.__import__
        types.CodeType types.FunctionType sys._getframe sys._current_frames inspect.currentframe inspect.stack code.interact
        breakpoint timeit.timeit timeit.Timer cProfile.run""",
    environment="os.environ os.environb os.getenv os.getenvb os.getlogin os.putenv os.unsetenv platform.node",
    global_state="""sys.path.insert sys.path.append sys.path.extend sys.path.remove sys.path.pop sys.path.clear
        sys.modules.pop sys.modules.update sys.modules.setdefault sys.modules.clear sys.meta_path sys.path_hooks
        sys.path_importer_cache sys.settrace sys.setprofile sys.addaudithook sys.setrecursionlimit threading.settrace
        threading.setprofile""",
)
"""What using a name tells."""

ATTRIBUTES = _table(
    network="from_pretrained push_to_hub",
    files="write_text write_bytes read_text read_bytes unlink rmdir mkdir touch symlink_to hardlink_to iterdir to_pickle tofile",
    pickle="read_pickle __reduce__ __reduce_ex__",
    dynamic_code="""__subclasses__ __globals__ __builtins__ __code__ __closure__ f_globals f_locals f_builtins f_back f_code
        gi_frame cr_frame tb_frame func_globals exec_module load_module""",
)
"""What using an attribute of an object that isn't known tells."""

DECODERS = _names(
    """base64.b64decode base64.b32decode base64.b16decode base64.b85decode base64.a85decode base64.decodebytes
    base64.standard_b64decode base64.urlsafe_b64decode binascii.unhexlify binascii.a2b_hex binascii.a2b_base64 zlib.decompress
    zlib.decompressobj lzma.decompress bz2.decompress gzip.decompress codecs.decode bytes.fromhex bytearray.fromhex
    marshal.loads"""
)
EXECUTORS = frozenset(
    ["eval", "exec", "compile", "__import__", "types.CodeType", "types.FunctionType", "marshal.loads", "importlib.import_module"]
)
HIDING_CODECS = frozenset({"rot13", "rot_13", "hex", "base64", "zlib", "bz2", "unicode_escape", "raw_unicode_escape", "punycode"})
AT_IMPORT = frozenset({"network", "subprocess", "native", "files", "pickle", "dynamic-code"})
"""What a module has no business doing while it is imported."""
