"""What the Hub answers: a function for each endpoint that uploading, loading or reading a model asks.

Each takes the request, a `Handler`, and the parts of its path; it returns `(content, headers)` or `(content, headers,
status)`, or raises a [`Refusal`].
"""

import base64
import json

import yaml

from tests.hub.repositories import File, Repository

REPO = r"([\w.-]+/[\w.-]+)"


class Refusal(Exception):
    """An answer other than success: status, message, the Hub's code for it, further headers."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers):
        self.status, self.message, self.headers = status, message, {"X-Error-Message": message, **headers}
        if code:
            self.headers["X-Error-Code"] = code


def whoami(request):
    if request.user is None:
        raise Refusal(401, "Invalid username or password.")
    return {"type": "user", "name": request.user, "orgs": [], "auth": {"accessToken": {"role": request.role}}}, {}


def create_repository(request):
    wanted = json.loads(request.body)
    namespace = wanted.get("organization") or request.user
    request.check_writer(namespace)
    name = f"{namespace}/{wanted['name']}"
    url = {"url": f"{request.server.url}/{name}", "name": name}
    if name in request.server.repositories:
        return {**url, "error": "You already created this model repo"}, {}, 409
    request.server.repositories[name] = Repository(name, private=wanted.get("visibility") == "private")
    return url, {}


def card_errors(card: str) -> list[dict]:
    """What is wrong with the YAML at the head of a README.md."""
    try:
        yaml.safe_load(card.split("---\n")[1] if card.startswith("---\n") else "")
    except yaml.YAMLError as error:
        return [{"message": str(error)}]
    return []


def validate_yaml(request):
    errors = card_errors(json.loads(request.body)["content"])
    return {"errors": errors, "warnings": []}, {}, 400 if errors else 200


def create_branch(request, name: str, branch: str):
    repository = request.repository(name, write=True)
    if branch in repository.branches:
        raise Refusal(409, f"Reference {branch!r} already exists")
    repository.branches[branch] = request.commit(name, json.loads(request.body or b"{}").get("startingPoint", ""))
    return {"success": True}, {}


def preupload(request, name: str, revision: str):
    request.repository(name, write=True)
    present = request.commit(name, revision).files
    files = []
    for file in json.loads(request.body)["files"]:
        path, binary = file["path"], b"\0" in base64.b64decode(file["sample"])
        mode = "lfs" if binary or path.endswith((".safetensors", ".bin")) else "regular"
        oid = {"oid": present[path].id} if path in present else {}
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
    return {"files": files}, {}


def large_file_batch(request, name: str):
    request.repository(name, write=True)
    objects = []
    for wanted in json.loads(request.body)["objects"]:
        if wanted["oid"] not in request.server.storage:
            upload = {"href": f"{request.server.storage_url}/storage/{wanted['oid']}"}
            verify = {"href": f"{request.server.url}/{name}.git/info/lfs/verify"}
            wanted = {**wanted, "actions": {"upload": upload, "verify": verify}}
        objects.append(wanted)
    return {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"}


def large_file_verify(request, name: str):
    request.repository(name, write=True)
    wanted = json.loads(request.body)
    if len(request.server.storage.get(wanted["oid"], b"")) != wanted["size"]:
        raise Refusal(404, "The object is missing or of another size")
    return {}, {}


def storage(request, oid: str):
    if request.token is not None or request.headers["Host"] not in request.server.storage_url:
        raise Refusal(400, "Only one auth mechanism allowed")
    if request.command == "PUT":
        if File(request.body).sha256 != oid:
            raise Refusal(400, "The content does not have this hash")
        request.server.storage[oid] = request.body
    if oid not in request.server.storage:
        raise Refusal(404, "No such object")
    return b"" if request.command == "PUT" else request.server.storage[oid], {"ETag": f'"{oid}"'}


def commit_files(request, name: str, revision: str):
    repository = request.repository(name, write=True)
    header, *operations = (json.loads(line) for line in request.body.splitlines())
    files = {}
    for operation in operations:
        value = operation["value"]
        if operation["key"] == "lfsFile":
            if value["oid"] not in request.server.storage:
                raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
            files[value["path"]] = File(request.server.storage[value["oid"]], is_large=True)
        elif operation["key"] == "file":
            files[value["path"]] = File(base64.b64decode(value["content"]))
            if value["path"] == "README.md" and card_errors(files["README.md"].content.decode()):
                raise Refusal(400, "Invalid metadata in README.md")
        else:
            raise Refusal(400, f"This server knows no {operation['key']}")
    commit = repository.commit(revision, header["value"]["summary"], files)
    return {
        "success": True,
        "commitOid": commit.id,
        "commitUrl": f"{request.server.url}/{name}/commit/{commit.id}",
    }, {}


def information(request, name: str, revision: str = ""):
    commit = request.commit(name, revision)
    about = {"id": name, "modelId": name, "sha": commit.id, "private": request.repository(name).private, "tags": []}
    return {**about, "siblings": [{"rfilename": path} for path in commit.files]}, {}


def tree(request, name: str, revision: str, folder: str = ""):
    entries, inside = [], f"{folder}/" if folder else ""
    for path, file in request.commit(name, revision).files.items():
        if path.startswith(inside):
            large = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
            entry = {"type": "file", "path": path, "oid": file.git_id, "size": len(file.content)}
            entries.append({**entry, "lfs": large} if file.is_large else entry)
    if folder and not entries:
        raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
    if "recursive=true" not in request.query.lower():
        entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(inside)]
    return entries, {}


def commits(request, name: str, revision: str):
    shared = {"date": "2026-01-01T00:00:00.000Z", "authors": [{"user": name.split("/")[0]}], "message": ""}
    return [{"id": one.id, "title": one.title, **shared} for one in request.commit(name, revision).history()], {}


def resolve(request, name: str, revision: str, path: str):
    """A file, or for a large one the redirection to storage; the headers say which commit it is from."""
    commit = request.commit(name, revision)
    of_commit = {"X-Repo-Commit": commit.id}
    if path not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", **of_commit)
    file = commit.files[path]
    if not file.is_large:
        return file.content, {**of_commit, "ETag": f'"{file.id}"'}
    linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": len(file.content)}
    return b"", {**of_commit, **linked, "Location": f"{request.server.storage_url}/storage/{file.sha256}"}, 302


ROUTES = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create_repository),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("POST", f"/api/models/{REPO}/branch/([^/]+)", create_branch),
    ("POST", f"/api/models/{REPO}/preupload/([^/]+)", preupload),
    ("POST", f"/api/models/{REPO}/commit/([^/]+)", commit_files),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", large_file_batch),
    ("POST", rf"/{REPO}\.git/info/lfs/verify", large_file_verify),
    ("GET PUT", r"/storage/(\w+)", storage),
    ("GET", f"/api/models/{REPO}", information),
    ("GET", f"/api/models/{REPO}/revision/([^/]+)", information),
    ("GET", f"/api/models/{REPO}/tree/([^/]+)(?:/(.+))?", tree),
    ("GET", f"/api/models/{REPO}/commits/([^/]+)", commits),
    ("GET HEAD", f"/{REPO}/resolve/([^/]+)/(.+)", resolve),
]
