"""config.yaml, SpikeCV's description of a data set; it has the size of the stream, but no timing."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.spike.description import find_description
from utils.utils_error import UserError
from utils.utils_file import read_text, write_text

FILE_NAME = "config.yaml"


class SpikeConfig(BaseModel):
    """SpikeCV's keys; unused ones are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    filename: str = ""  # the data set's folder
    spike_h: Annotated[int, Field(gt=0)]
    spike_w: Annotated[int, Field(gt=0)]
    is_labeled: bool = False
    labeled_data_type: list[int | float] = [0]  # 0: raw spikes
    labeled_data_suffix: str = ""
    data_field_identifier: str = "spike"  # folder of the `.dat` files in a clip's folder

    @classmethod
    def load(cls, dataroot_spike: str | Path) -> "SpikeConfig | None":
        """Read the config.yaml that `find_description` finds for these spikes, else None; errors as `read`."""
        path = find_description(dataroot_spike, FILE_NAME)
        return None if path is None else cls.read(path)

    @classmethod
    def read(cls, path: Path) -> "SpikeConfig":
        """Read a config.yaml.

        Raises:
            UserError: the file is not valid YAML, or the size of the stream is missing or invalid.
        """
        try:
            return cls.model_validate(yaml.safe_load(read_text(path)))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise UserError(f"{path}: {place}: {first['msg']}, found {first['input']!r}; correct it") from None
        except yaml.YAMLError as error:
            raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it") from None

    def save(self, folder: str | Path) -> None:
        write_text(Path(folder) / FILE_NAME, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))
