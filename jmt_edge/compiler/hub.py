"""A bundle on the Hugging Face Hub: one commit with its verified files and its model card.

The Hub's address, token and transfer are `huggingface_hub`'s own: `$HF_ENDPOINT`, `$HF_TOKEN` or `hf auth login`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..engine.bundle import load_bundle
from ..engine.manifest import CHECKSUM, MANIFEST
from ..errors import ConfigError, InstallError, OutputError, short
from .card import CARD, model_card


def push(path: Path, repo: str, *, public: bool = False, revision: str = "") -> str:
    """Upload the bundle at `path` to the model repository `repo` (`OWNER/NAME`), made if it does not exist; returns the
    commit's address.

    All files go up in one commit, so nobody downloads half of a bundle. public: of a new repository, which is private
    by default. A bundle without a model card gets one from its manifest. Raises BundleError for a bundle that is not
    whole, ConfigError for a bad name, InstallError without `huggingface_hub`, OutputError where the Hub refuses or
    cannot be reached.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    except ImportError:
        raise InstallError("push needs huggingface_hub; install it with pip install 'jmt-edge[hub]'") from None
    bundle = load_bundle(path)
    if repo.count("/") != 1:
        raise ConfigError(f"'{repo}' is not the name of a repository; write OWNER/NAME")
    contents = {name: stored.read() for name, stored in bundle.files.items()}  # compared with their hashes
    contents |= {name: (path / name).read_bytes() for name in (MANIFEST, CHECKSUM) if (path / name).is_file()}
    contents.setdefault(CARD, model_card(bundle.manifest))
    operations = [CommitOperationAdd(name, content) for name, content in sorted(contents.items())]
    api = HfApi(library_name="jmt-edge")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings are not for users of this command
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.create_commit(
            repo, operations, commit_message=f"{bundle.name}, written by jmt-edge", revision=revision or None
        )
    except HFValidationError as error:
        raise ConfigError(f"'{repo}' cannot name a repository ({short(error)}); choose another name") from None
    except LocalTokenNotFoundError:
        raise OutputError("the Hub needs a token; run `hf auth login`, or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        status = int(getattr(error.response, "status_code", 0))
        remedy = {
            401: "log in with `hf auth login`, or set HF_TOKEN",
            403: "use a token that may write to it",
            404: "check the name, and that the token may write to it",
        }.get(status, "try again later")
        raise OutputError(f"{repo} was not written: the Hub answered {status} ({short(error)}); {remedy}") from None
    except OSError as error:
        raise OutputError(f"the Hub cannot be reached ({short(error)}); check the network and HF_ENDPOINT") from None
    except Exception as error:  # its HTTP client's own errors, which are of no common class over its versions
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise OutputError(f"the Hub cannot be reached ({short(error)}); check the network and HF_ENDPOINT") from None
    return str(commit.commit_url)
