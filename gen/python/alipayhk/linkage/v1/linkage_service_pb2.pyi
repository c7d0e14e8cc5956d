import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OperateType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATE_TYPE_UNSPECIFIED: _ClassVar[OperateType]
    OPERATE_TYPE_BIND: _ClassVar[OperateType]
    OPERATE_TYPE_UNBIND: _ClassVar[OperateType]

class ExternalIdentityType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXTERNAL_IDENTITY_TYPE_UNSPECIFIED: _ClassVar[ExternalIdentityType]
    EXTERNAL_IDENTITY_TYPE_UID: _ClassVar[ExternalIdentityType]
    EXTERNAL_IDENTITY_TYPE_PHONE: _ClassVar[ExternalIdentityType]

class BindingTargetType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BINDING_TARGET_TYPE_UNSPECIFIED: _ClassVar[BindingTargetType]
    BINDING_TARGET_TYPE_USER_ID: _ClassVar[BindingTargetType]
    BINDING_TARGET_TYPE_CARD: _ClassVar[BindingTargetType]
    BINDING_TARGET_TYPE_PHONE: _ClassVar[BindingTargetType]
OPERATE_TYPE_UNSPECIFIED: OperateType
OPERATE_TYPE_BIND: OperateType
OPERATE_TYPE_UNBIND: OperateType
EXTERNAL_IDENTITY_TYPE_UNSPECIFIED: ExternalIdentityType
EXTERNAL_IDENTITY_TYPE_UID: ExternalIdentityType
EXTERNAL_IDENTITY_TYPE_PHONE: ExternalIdentityType
BINDING_TARGET_TYPE_UNSPECIFIED: BindingTargetType
BINDING_TARGET_TYPE_USER_ID: BindingTargetType
BINDING_TARGET_TYPE_CARD: BindingTargetType
BINDING_TARGET_TYPE_PHONE: BindingTargetType

class SyncLinkageRequest(_message.Message):
    __slots__ = ("request_id", "biz_time", "operate_type", "external_identity_type", "external_identity_value", "user_id", "binding_target_type", "binding_target", "external_binding_id", "expiry_time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BIZ_TIME_FIELD_NUMBER: _ClassVar[int]
    OPERATE_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_IDENTITY_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_IDENTITY_VALUE_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    BINDING_TARGET_TYPE_FIELD_NUMBER: _ClassVar[int]
    BINDING_TARGET_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_BINDING_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRY_TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    biz_time: _timestamp_pb2.Timestamp
    operate_type: OperateType
    external_identity_type: ExternalIdentityType
    external_identity_value: str
    user_id: str
    binding_target_type: BindingTargetType
    binding_target: str
    external_binding_id: str
    expiry_time: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., biz_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., operate_type: _Optional[_Union[OperateType, str]] = ..., external_identity_type: _Optional[_Union[ExternalIdentityType, str]] = ..., external_identity_value: _Optional[str] = ..., user_id: _Optional[str] = ..., binding_target_type: _Optional[_Union[BindingTargetType, str]] = ..., binding_target: _Optional[str] = ..., external_binding_id: _Optional[str] = ..., expiry_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SyncLinkageResponse(_message.Message):
    __slots__ = ("result", "tracer_id", "response_time", "replayed", "resolved_by_operator")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TRACER_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_BY_OPERATOR_FIELD_NUMBER: _ClassVar[int]
    result: Result
    tracer_id: str
    response_time: _timestamp_pb2.Timestamp
    replayed: bool
    resolved_by_operator: bool
    def __init__(self, result: _Optional[_Union[Result, _Mapping]] = ..., tracer_id: _Optional[str] = ..., response_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replayed: bool = ..., resolved_by_operator: bool = ...) -> None: ...

class BindAccountRequest(_message.Message):
    __slots__ = ("request_id", "merchant_account_id", "sub_merchant_id", "type", "sub_type", "account_id", "template_form", "open_id", "user_id", "timestamp", "extend_info")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    SUB_MERCHANT_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FORM_FIELD_NUMBER: _ClassVar[int]
    OPEN_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXTEND_INFO_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    merchant_account_id: str
    sub_merchant_id: str
    type: str
    sub_type: str
    account_id: str
    template_form: TemplateForm
    open_id: str
    user_id: str
    timestamp: _timestamp_pb2.Timestamp
    extend_info: str
    def __init__(self, request_id: _Optional[str] = ..., merchant_account_id: _Optional[str] = ..., sub_merchant_id: _Optional[str] = ..., type: _Optional[str] = ..., sub_type: _Optional[str] = ..., account_id: _Optional[str] = ..., template_form: _Optional[_Union[TemplateForm, _Mapping]] = ..., open_id: _Optional[str] = ..., user_id: _Optional[str] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., extend_info: _Optional[str] = ...) -> None: ...

class TemplateForm(_message.Message):
    __slots__ = ("form_code", "form_values")
    class FormValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FORM_CODE_FIELD_NUMBER: _ClassVar[int]
    FORM_VALUES_FIELD_NUMBER: _ClassVar[int]
    form_code: str
    form_values: _containers.ScalarMap[str, str]
    def __init__(self, form_code: _Optional[str] = ..., form_values: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BindAccountResponse(_message.Message):
    __slots__ = ("result", "need_bind", "account", "response_time", "replayed", "resolved_by_operator")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    NEED_BIND_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_BY_OPERATOR_FIELD_NUMBER: _ClassVar[int]
    result: Result
    need_bind: bool
    account: Account
    response_time: _timestamp_pb2.Timestamp
    replayed: bool
    resolved_by_operator: bool
    def __init__(self, result: _Optional[_Union[Result, _Mapping]] = ..., need_bind: bool = ..., account: _Optional[_Union[Account, _Mapping]] = ..., response_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replayed: bool = ..., resolved_by_operator: bool = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("status", "code", "code_id", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CODE_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    code: str
    code_id: str
    message: str
    def __init__(self, status: _Optional[str] = ..., code: _Optional[str] = ..., code_id: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Account(_message.Message):
    __slots__ = ("account_id", "type", "sub_type", "status", "auto_debit_status", "merchant", "name", "phone")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    AUTO_DEBIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PHONE_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    type: str
    sub_type: str
    status: str
    auto_debit_status: str
    merchant: Merchant
    name: str
    phone: str
    def __init__(self, account_id: _Optional[str] = ..., type: _Optional[str] = ..., sub_type: _Optional[str] = ..., status: _Optional[str] = ..., auto_debit_status: _Optional[str] = ..., merchant: _Optional[_Union[Merchant, _Mapping]] = ..., name: _Optional[str] = ..., phone: _Optional[str] = ...) -> None: ...

class Merchant(_message.Message):
    __slots__ = ("merchant_account_id", "sub_merchant_id", "merchant_name", "merchant_english_name")
    MERCHANT_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    SUB_MERCHANT_ID_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_NAME_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_ENGLISH_NAME_FIELD_NUMBER: _ClassVar[int]
    merchant_account_id: str
    sub_merchant_id: str
    merchant_name: str
    merchant_english_name: str
    def __init__(self, merchant_account_id: _Optional[str] = ..., sub_merchant_id: _Optional[str] = ..., merchant_name: _Optional[str] = ..., merchant_english_name: _Optional[str] = ...) -> None: ...
