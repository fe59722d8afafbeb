"""Publishing a folder as a model repository, by the hubs' own clients.

Knows nothing of what is in the folder.
"""

from __future__ import annotations

from pathlib import Path

from twinkle.errors import CheckpointError, ConfigError


def upload_folder(folder: Path, repo: str, *, token: str | None, private: bool, message: str) -> str:
    """Publish a folder as a model repository, ``hf://owner/name`` or ``ms://owner/name`` (no scheme: Hugging Face).

    Raises:
        ConfigError: the scheme is another.
        CheckpointError: the hub refuses, or can't be reached.
    """
    scheme, _, name = repo.rpartition("://")
    try:
        if scheme in ("", "hf"):
            from huggingface_hub import HfApi

            api = HfApi(token=token)
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        elif scheme == "ms":
            from modelscope.hub.api import HubApi

            hub = HubApi(token=token)
            hub.create_repo(name, visibility="private" if private else "public", exist_ok=True)
            hub.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message)
        else:
            raise ConfigError(f"Models are published to hf:// or ms://, not {scheme}://.")
    except ConfigError:
        raise
    except Exception as error:  # each client has a tree of errors of its own
        raise CheckpointError(f"{folder} can't be published as {repo}: {error}") from error
    return f"{scheme or 'hf'}://{name}"
